// The page itself: takes photos and camera pictures, and shows what the network says.
"use strict";

const $ = (id) => document.getElementById(id);
const SHOWN = 5; // classes of a photo
const THUMBNAIL = 320; // pixels
const ANNOUNCED_MS = 1500; // a camera's answer is read out at most this often

const CAMERA_PROBLEMS = {
  NotFoundError: "No camera was found on this device.",
  NotAllowedError:
    "This page may not use the camera. Allow it in the browser's settings for this page, and try again.",
  NotReadableError: "The camera is in use by another program, or does not answer.",
};

let network = null; // {metadata, run}, once it is open
let camera = null; // {stream, facing}, while it is on
let queue = Promise.resolve(); // photos are looked at one after the other

// ------------------------------------------------------------------ small helpers

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// A long computation blocks the page: let it paint first.
const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

function showProblem(text) {
  $("problems").append(element("p", { className: "problem", textContent: text }));
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const milliseconds = (time) => `${time < 10 ? time.toFixed(1) : Math.round(time)} ms`;
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

// ------------------------------------------------------------------ what the network says

// Returns {rows, answer, found}: the classes to show, the likeliest first, and the answer in words.
function reading(values, { labels, output, thresholds, unknown }) {
  const rows = values.map((value, index) => ({ name: labels[index], value, index }));
  if (output === "numbers") {
    const text = ({ value }) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
    rows.forEach((row) => Object.assign(row, { chosen: true, text: text(row) }));
    return { rows, answer: rows.map((row) => `${row.name} ${row.text}`).join(", "), found: true };
  }
  rows.sort((a, b) => b.value - a.value || a.index - b.index);
  const isUnknown = unknown && rows[0].value < unknown.threshold; // like nothing that it has learnt
  rows.forEach((row, rank) => {
    row.chosen = !isUnknown && (thresholds ? row.value >= thresholds[row.index] : rank === 0);
    row.text = percent(row.value);
  });
  const chosen = rows.filter((row) => row.chosen);
  const others = rows.filter((row) => !row.chosen).slice(0, Math.max(0, SHOWN - chosen.length));
  const otherwise = isUnknown ? unknown.label : "none of the classes";
  const answer = chosen.map((row) => row.name).join(", ") || otherwise;
  return { rows: [...chosen, ...others], answer, found: chosen.length > 0 };
}

function bars(rows, isNumbers) {
  const items = rows.map(({ name, value, text, chosen }) => {
    const item = element(
      "li",
      { className: chosen ? "chosen" : "" },
      element("span", { className: "name", textContent: name, title: name }),
      element("span", { className: "share", textContent: text }),
    );
    if (!isNumbers) {
      const bar = element("span");
      bar.style.width = percent(value);
      item.append(element("span", { className: "track", ariaHidden: "true" }, bar));
    }
    return item;
  });
  return element("ol", { className: "bars" }, ...items);
}

// Classifies pixels: {said, time}, as reading() returns it, and as nodes to show.
async function classify(image) {
  const start = performance.now();
  const input = Pixels.prepare(image, network.metadata);
  const prepared = performance.now();
  const values = await network.run(input);
  const end = performance.now();
  return {
    said: reading(values, network.metadata),
    time: [
      `${milliseconds(end - start)} `,
      element("span", { textContent: `(network: ${milliseconds(end - prepared)})` }),
    ],
  };
}

// ------------------------------------------------------------------ photos

async function opened(file) {
  // As evaluation does: upright by EXIF, and numbers as they are stored, whatever their colour space.
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  try {
    return await createImageBitmap(file, options);
  } catch (error) {
    console.info(error);
    throw new Network.PlainError(
      `${file.name || "What was pasted"} is not an image that this browser can open.`,
    );
  }
}

function thumbnail(source, width, height, name) {
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  const scale = Math.min(1, THUMBNAIL / Math.min(width, height));
  [canvas.width, canvas.height] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

async function addPhoto(file) {
  const name = file.name || "pasted image";
  $("status").textContent = `Looking at ${name} …`;
  const bitmap = await opened(file);
  await painted();
  const background = file.type === "image/gif" ? "black" : "white"; // as when the network was trained
  const image = Pixels.read(bitmap, bitmap.width, bitmap.height, background);
  const { said, time } = await classify(image);
  const card = element(
    "article",
    { className: "result" },
    thumbnail(bitmap, bitmap.width, bitmap.height, name),
    element(
      "div",
      { className: "head" },
      element("h3", { className: said.found ? "answer" : "answer none", textContent: said.answer }),
      element("p", { className: "file", textContent: name, title: name }),
    ),
    element("p", { className: "time" }, ...time),
    bars(said.rows, network.metadata.output === "numbers"),
  );
  bitmap.close();
  $("results").prepend(card);
  countResults();
  $("status").textContent = `${name}: ${said.answer}`;
}

function countResults() {
  const count = $("results").childElementCount;
  $("tools").hidden = count === 0;
  document.body.classList.toggle("busy", count > 0 || camera !== null);
  $("count").textContent = plural(count, "photo");
}

function addPhotos(files) {
  $("problems").replaceChildren();
  for (const file of files) {
    if (!network && file.name.endsWith(".tflite")) {
      ready = ready.then(async () => start(new Uint8Array(await file.arrayBuffer())));
      continue;
    }
    queue = queue.then(async () => {
      try {
        await ready;
        if (network) await addPhoto(file);
      } catch (error) {
        explain(error, `${file.name || "The image"} could not be looked at`);
      }
    });
  }
}

function explain(error, otherwise) {
  $("status").textContent = "";
  if (!(error instanceof Network.PlainError)) console.error(error);
  showProblem(error instanceof Network.PlainError ? error.message : `${otherwise} (${error.message}).`);
}

// ------------------------------------------------------------------ camera

let cameraStarts = 0;

async function startCamera(facing) {
  const start = ++cameraStarts;
  $("problems").replaceChildren();
  await ready;
  if (!network) return;
  stopCamera();
  if (!navigator.mediaDevices) {
    showProblem("Browsers offer the camera only to pages from https:// or from this computer (localhost).");
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: { ideal: facing } } });
    if (start !== cameraStarts) { // the button was pressed again before the camera was allowed
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
  } catch (error) {
    console.info(error);
    showProblem(CAMERA_PROBLEMS[error.name] || `The camera cannot be used (${error.message}).`);
    return;
  }
  const started = { stream, facing };
  camera = started;
  countResults();
  stream.getVideoTracks()[0].addEventListener("ended", () => camera === started && stopCamera());
  $("live").hidden = false;
  $("video").srcObject = stream;
  try {
    await $("video").play();
  } catch (error) { // also because it was stopped or turned before its first picture
    if (camera !== started) return;
    stopCamera();
    explain(error, "The camera's picture cannot be shown");
    return;
  }
  const devices = await navigator.mediaDevices.enumerateDevices();
  if (camera !== started) return;
  $("turn").hidden = devices.filter((device) => device.kind === "videoinput").length < 2;
  $("stop").focus();
  watch(started);
}

function stopCamera() {
  if (!camera) return;
  const { stream } = camera;
  camera = null;
  countResults();
  stream.getTracks().forEach((track) => track.stop());
  $("video").srcObject = null;
  $("live").hidden = true;
}

// Classifies pictures of the camera until it is stopped.
async function watch(current) {
  let announced = 0;
  while (camera === current) {
    await painted();
    const { videoWidth: width, videoHeight: height } = $("video");
    if (!width || document.hidden) {
      await new Promise((done) => setTimeout(done, 100));
      continue;
    }
    try {
      const { said, time } = await classify(Pixels.read($("video"), width, height));
      if (camera !== current) return;
      $("live-bars").replaceChildren(bars(said.rows, network.metadata.output === "numbers"));
      $("live-time").replaceChildren(...time);
      $("live-name").textContent = said.answer;
      const isNew = $("spoken").textContent !== said.answer;
      if (isNew && performance.now() - announced > ANNOUNCED_MS) {
        $("spoken").textContent = said.answer;
        announced = performance.now();
      }
    } catch (error) {
      stopCamera();
      explain(error, "The camera's picture could not be looked at");
    }
  }
}

// ------------------------------------------------------------------ start

function introduce({ labels, channels, image_size: size, output, model_name: name }) {
  const what = output === "numbers" ? "number" : "class";
  const count = `${labels.length.toLocaleString("en")} ${what}${labels.length === 1 ? "" : what === "class" ? "es" : "s"}`;
  const few = labels.length <= 12 ? `: ${labels.join(", ")}` : "";
  $("details").textContent =
    `${name}, ${size} × ${size} pixels${channels === 1 ? " in grey" : ""}, ${count}${few}.`;
}

async function start(bytes = null) {
  $("loading").hidden = false;
  try {
    network = await Network.open(CONFIG, {
      bytes,
      onProgress: (share) => ($("progress").value = Math.min(1, share)),
    });
    introduce(network.metadata);
    $("status").textContent = "Ready.";
  } catch (error) {
    explain(error, "The network could not be opened");
  }
  $("loading").hidden = true;
}

let ready = start();

$("files").addEventListener("change", (event) => {
  addPhotos([...event.target.files]);
  event.target.value = ""; // the same photo can be chosen again
});
$("camera").addEventListener("click", () => startCamera("environment"));
$("stop").addEventListener("click", () => {
  stopCamera();
  $("camera").focus();
});
$("turn").addEventListener("click", () =>
  startCamera(camera && camera.facing === "environment" ? "user" : "environment"),
);
$("clear").addEventListener("click", () => {
  $("results").replaceChildren();
  countResults();
  $("status").textContent = "";
});

addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  addPhotos([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => addPhotos([...event.clipboardData.files]));
