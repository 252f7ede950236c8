// Makes src/antiphon/web/vendor from node_modules: one minified ES module for each library that
// the page loads, its licence beside it, and KaTeX's style sheet and fonts. `make vendor` runs it.
import { build } from "esbuild";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { resolve } from "node:path";

const from = process.argv[2];
const to = process.argv[3];
const LANGUAGES = [
  "bash", "c", "cpp", "csharp", "css", "diff", "go", "ini", "java", "javascript", "json",
  "kotlin", "markdown", "php", "python", "ruby", "rust", "sql", "swift", "typescript", "xml", "yaml",
];
const BUNDLES = {
  "preact.js": `
    import { Component, Fragment, h, render } from "preact";
    import htm from "htm";
    export { Component, Fragment, h, render };
    export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useReducer, useState } from "preact/hooks";
    export const html = htm.bind(h);`,
  "marked.js": `export { Marked } from "marked";`,
  "katex.js": `export { default } from "katex";`,
  "highlight.js": `
    import highlighter from "highlight.js/lib/core";
    ${LANGUAGES.map((one) => `import ${one} from "highlight.js/lib/languages/${one}";`).join("\n")}
    for (const [name, grammar] of Object.entries({ ${LANGUAGES.join(", ")} }))
      highlighter.registerLanguage(name, grammar);
    export default highlighter;`,
};
const LICENSES = {
  "preact.LICENSE": ["preact/LICENSE"],
  "htm.LICENSE": ["htm/LICENSE"],
  "marked.LICENSE": ["marked/LICENSE", "marked/LICENSE.md"],
  "katex.LICENSE": ["katex/LICENSE"],
  "highlight.LICENSE": ["highlight.js/LICENSE"],
};

await rm(to, { recursive: true, force: true });
await mkdir(`${to}/fonts`, { recursive: true });
for (const [name, contents] of Object.entries(BUNDLES))
  await build({
    stdin: { contents, resolveDir: from },
    nodePaths: [resolve(from, "node_modules")],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "none",
    outfile: `${to}/${name}`,
  });
for (const [name, places] of Object.entries(LICENSES)) {
  const texts = await Promise.all(
    places.map((place) => readFile(`${from}/node_modules/${place}`, "utf8").catch(() => null)),
  );
  await writeFile(`${to}/${name}`, texts.find(Boolean));
}
const katex = `${from}/node_modules/katex/dist`;
const sheet = await readFile(`${katex}/katex.min.css`, "utf8");
// Browsers that can run the page know woff2.
await writeFile(`${to}/katex.css`, sheet.replace(/,url\([^)]*\.(?:woff|ttf)\) format\("\w+"\)/g, ""));
for (const name of await readdir(`${katex}/fonts`))
  if (name.endsWith(".woff2")) await cp(`${katex}/fonts/${name}`, `${to}/fonts/${name}`);
