// Runs the functions that the command line names, and prints what each came to as one JSON object.

export async function run(functions) {
  const outcomes = {};
  for (const name of process.argv.slice(2)) {
    try {
      outcomes[name] = { value: await functions[name]() };
    } catch (error) {
      outcomes[name] = { error: String(error?.stack ?? error) };
    }
  }
  console.log(JSON.stringify(outcomes));
}
