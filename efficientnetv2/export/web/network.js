// Loads the runtime and the network, reads what the network's file says about itself, and runs it.
"use strict";

const Network = (() => {
  // Browsers let a page that is opened as a file load scripts and pictures, but no other files.
  const AS_FILE =
    "This page was opened as a file, so the browser does not let it read its network. Start " +
    "python -m http.server in its folder and open http://localhost:8000";

  function runtimeProblem(file) {
    const address = new URL(file.url, location.href);
    if (address.protocol === "file:") return `${AS_FILE}.`;
    if (address.host === location.host) return "A file of this page's folder runtime is missing.";
    return (
      `The program that runs the network could not be loaded from ${address.host}. Check the ` +
      "connection, or export the page with --web_runtime, which puts it into the page's folder."
    );
  }

  function modelProblem(name) {
    if (location.protocol === "file:") return `${AS_FILE}, or drop the file ${name} here.`;
    return `The network's file ${name} could not be loaded from the page's folder.`;
  }

  // An error whose message is for the people who look at the page.
  class PlainError extends Error {}

  // Loads a file in full, and refuses it if its hash is not the expected one.
  async function load(file, onBytes = () => {}) {
    const response = await fetch(file.url, file.integrity ? { integrity: file.integrity } : {});
    if (!response.ok) throw new Error(`${file.url}: ${response.status}`);
    const parts = [];
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      onBytes(value.length);
    }
    return new Blob(parts);
  }

  const asScript = (blob) => URL.createObjectURL(new Blob([blob], { type: "text/javascript" }));

  // Starts LiteRT.js from checked files; one thread, as plain servers send no isolation headers.
  async function startRuntime(files, onBytes) {
    const [utils, core] = await Promise.all([load(files.utils), load(files.core)]);
    const source = (await core.text()).replace('"@litertjs/wasm-utils"', `"${asScript(utils)}"`);
    const LiteRt = await import(asScript(source));
    const fast = await LiteRt.supportsFeature("relaxedSimd");
    const [script, binary] = await Promise.all([
      load(fast ? files.script : files.compat_script, onBytes),
      load(fast ? files.binary : files.compat_binary, onBytes),
    ]);
    globalThis.Module = { wasmBinary: await binary.arrayBuffer() };
    await LiteRt.loadLiteRt(`${asScript(script)}#litert.js`);
    return LiteRt;
  }

  // Reads the files that are packed behind the network: {name: text}. They are not compressed.
  function attachedFiles(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const end = bytes.length - 22;
    if (end < 0 || view.getUint32(end, true) !== 0x06054b50) return {};
    const [count, size] = [view.getUint16(end + 10, true), view.getUint32(end + 12, true)];
    const text = (from, length) => new TextDecoder().decode(bytes.subarray(from, from + length));
    const files = {};
    let entry = end - size;
    const start = entry - view.getUint32(end + 16, true);
    for (let n = 0; n < count; n++) {
      const length = view.getUint32(entry + 20, true);
      const local = start + view.getUint32(entry + 42, true);
      const data = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
      const nameLength = view.getUint16(entry + 28, true);
      files[text(entry + 46, nameLength)] = text(data, length);
      entry += 46 + nameLength + view.getUint16(entry + 30, true) + view.getUint16(entry + 32, true);
    }
    return files;
  }

  function describe(bytes) {
    const files = attachedFiles(bytes);
    if (!files["metadata.json"] || !files["labels.txt"]) {
      throw new PlainError("This is not a LiteRT file that efficientnetv2 has exported.");
    }
    const labels = files["labels.txt"].split("\n").slice(0, -1);
    const metadata = { ...JSON.parse(files["metadata.json"]), labels };
    if (metadata.output === "logits" && metadata.thresholds) {
      metadata.thresholds = metadata.thresholds.map(sigmoid);
    }
    return metadata;
  }

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  // Returns outputs as probabilities, or as the numbers that the network predicts.
  function readable(outputs, metadata) {
    if (metadata.output !== "logits") return outputs;
    if (metadata.thresholds) return outputs.map(sigmoid);
    const largest = Math.max(...outputs);
    const powers = outputs.map((x) => Math.exp(x - largest));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((x) => x / sum);
  }

  let runtime = null; // LiteRT.js, once it is needed

  // Opens the network; returns {metadata, run}. `bytes` are those of its file, if they are known.
  async function open(config, { bytes = null, onProgress = () => {} } = {}) {
    let done = 0;
    const onBytes = (count) => onProgress((done += count) / config.bytes);
    runtime ??= startRuntime(config.runtime, onBytes).catch((error) => {
      console.error(error);
      throw new PlainError(runtimeProblem(config.runtime.core));
    });
    runtime.catch(() => {}); // it is awaited below
    if (bytes === null) {
      const blob = await load({ url: config.model }, onBytes).catch((error) => {
        console.error(error);
        throw new PlainError(modelProblem(config.model));
      });
      bytes = new Uint8Array(await blob.arrayBuffer());
    }
    const metadata = describe(bytes);
    const LiteRt = await runtime;
    const model = await LiteRt.loadAndCompile(bytes, { accelerator: "wasm" });
    const { image_size: size, channels } = metadata;

    async function run(input) {
      const tensor = new LiteRt.Tensor(input, [1, size, size, channels]);
      const [output] = await model.run(tensor);
      const values = Array.from(output.toTypedArray());
      tensor.delete();
      output.delete();
      return readable(values, metadata);
    }

    return { metadata, run };
  }

  return { open, PlainError };
})();
