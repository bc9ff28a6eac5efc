// Uses a page as people do, and sends what it shows to the test; see test_web_page.py.
"use strict";

const problems = [];
addEventListener("error", (event) => problems.push(String(event.message)));
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));

const until = async (condition) => {
  while (!condition()) await new Promise((done) => setTimeout(done, 20));
};
const all = (selector) => [...document.querySelectorAll(selector)];
const texts = (selector) => all(selector).map((node) => node.textContent);
const send = (path, body) => fetch(path, { method: "POST", body });

async function fileOf(name) {
  const blob = await (await fetch(`/images/${name}`)).blob();
  return new File([blob], name, { type: blob.type });
}

function transfer(files) {
  const data = new DataTransfer();
  files.forEach((file) => data.items.add(file));
  return data;
}

const cards = () =>
  all(".result").map((card) => ({
    file: card.querySelector(".file").textContent,
    answer: card.querySelector(".answer").textContent,
    names: [...card.querySelectorAll(".name")].map((node) => node.textContent),
    shares: [...card.querySelectorAll(".share")].map((node) => node.textContent),
    time: card.querySelector(".time").textContent,
  }));

async function choose(names) {
  const input = document.getElementById("files");
  input.files = transfer(await Promise.all(names.map(fileOf))).files;
  input.dispatchEvent(new Event("change"));
  await until(() => all(".result").length === names.length || all(".problem").length);
}

async function drive() {
  const { names, cases, readings } = await (await fetch("/plan.json")).json();
  await until(() => network || all(".problem").length);
  const seen = { about: texts("h1, #about, #details"), problem: texts(".problem") };
  if (!network) return seen;
  await choose(names);
  seen.cards = cards();
  seen.status = texts("#status")[0];
  seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (!location.search) return seen;

  document.getElementById("clear").click();
  seen.cleared = all(".result").length === 0 && document.getElementById("tools").hidden;
  const dropped = transfer([await fileOf(names[0]), new File(["text"], "notes.txt")]);
  dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, cancelable: true }));
  await until(() => all(".problem").length);
  seen.dropped = [cards().length, texts(".problem")];
  const pasted = transfer([await fileOf(names[1])]);
  dispatchEvent(new ClipboardEvent("paste", { clipboardData: pasted }));
  await until(() => all(".result").length === 2);
  seen.pasted = [cards()[0], texts(".problem")];

  document.getElementById("camera").click();
  await until(() => all("#live-bars li").length && texts("#live-name")[0] !== "…");
  seen.camera = [texts("#live-name")[0], texts("#live-bars .name"), texts("#live-time")[0]];
  seen.wideCamera = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const video = document.getElementById("video");
  const first = video.srcObject;
  document.getElementById("turn").click();
  await until(() => video.srcObject && video.srcObject !== first);
  seen.turned = first.getTracks().every((track) => track.readyState === "ended");
  document.getElementById("turn").click();
  await new Promise((stopped) => { // before the first picture, while play() waits for it
    video.play = () => {
      const playing = HTMLMediaElement.prototype.play.call(video);
      document.getElementById("stop").click();
      stopped();
      return playing;
    };
  });
  delete video.play;
  seen.stopped = document.getElementById("live").hidden && !video.srcObject;
  const forbidden = Object.assign(document.createElement("iframe"), { src: ".", allow: "camera 'none'" });
  document.body.append(forbidden);
  await new Promise((done) => (forbidden.onload = done));
  const inside = forbidden.contentDocument;
  inside.getElementById("camera").click();
  await until(() => inside.querySelector(".problem"));
  seen.noCamera = inside.querySelector(".problem").textContent;

  seen.readings = readings.map(([values, metadata]) => reading(values, metadata));
  for (const [index, { name, metadata }] of cases.entries()) {
    const bitmap = await opened(await fileOf(name));
    const input = Pixels.prepare(Pixels.read(bitmap, bitmap.width, bitmap.height), metadata);
    await send(`/pixels/${index}`, input);
  }
  return seen;
}

if (window.top === window) {
  drive()
    .catch((error) => ({ failed: String(error.stack) }))
    .then((seen) => send("/seen", JSON.stringify({ ...seen, problems })))
    .then(async (answer) => {
      const next = await answer.text();
      if (next) location.href = next;
    });
}
