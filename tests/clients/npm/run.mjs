// Runs programs one after another, and prints what each came to as one JSON object.

export async function run(programs) {
  const outcomes = {};
  for (const [name, program] of Object.entries(programs)) {
    try {
      outcomes[name] = { value: await program() };
    } catch (error) {
      outcomes[name] = { error: String(error?.stack ?? error) };
    }
  }
  console.log(JSON.stringify(outcomes));
}

// The name of the error that something fails with.
export async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return [error.constructor.name, error.status, error.code];
  }
  return null;
}
