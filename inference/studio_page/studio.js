// The page of scripts/studio.py and scripts/export_page.py, which differ in transport.js. One image is requested at a
// time; when it comes, the latest pose is sent.

import { Editor, drawSkeleton, element, setAttributes } from "./editor.js";
import { close, post } from "./transport.js";

const $ = (id) => document.getElementById(id);
const look = await (await post("start")).json();
const source = { image: null, grid: null, dirty: false, version: 0 }; // dirty: the server does not have it yet
const history = { states: [], at: -1 };
const map = { key: null, levels: null, pointer: null }; // attention of the image that is shown, and what points at it
let shown = null; // {version, keypoints} of the generated image that is shown
let busy = false;
let wanted = false;
let failed = false;
let sequence = []; // the poses of the slider
let ends = [null, null];
let player = null;

const modes = () => ({ lock: $("lock").checked, limb: $("limb").checked });
const target = new Editor($("target"), look, { modes, changed: () => { stop(); refresh(); }, settled: remember });
const sourceEditor = new Editor($("source"), look, { modes, changed: () => { source.dirty = true; refresh(); }, settled: remember });

const editors = { "target-tools": target, "source-tools": sourceEditor };

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

// Run an action of a button or a file; its error becomes a message on the page.
function attempt(action) {
  return async (...given) => {
    say("");
    try {
      await action(...given);
    } catch (error) {
      say(error.message);
    }
  };
}

async function refresh() {
  wanted = true;
  if (busy) return;
  $("generated").ariaBusy = busy = true;
  try {
    while (wanted) {
      wanted = false;
      await generate();
    }
    if (failed) say("");
    failed = false;
  } catch (error) {
    say(error.message);
    failed = true;
  }
  $("generated").ariaBusy = busy = false;
}

async function generate() {
  if (!source.image) return;
  const start = performance.now();
  if (source.dirty) await sendSource();
  const keypoints = structuredClone(target.pose);
  const response = await post("image", { tab: look.tab, keypoints }).catch((error) => {
    if (error.status !== 410) throw error;
    source.dirty = wanted = true; // other tabs have displaced it
  });
  if (!response) return;
  const bitmap = await createImageBitmap(await response.blob());
  $("generated").getContext("2d").drawImage(bitmap, 0, 0);
  hideAttention();
  shown = { version: source.version, keypoints };
  $("generated").dataset.pose = JSON.stringify(keypoints); // of the image that is shown
  $("latency").textContent = `${Math.round(performance.now() - start)} ms`;
}

async function sendSource() {
  source.dirty = false; // an edit in the meantime sets it again
  try {
    const body = { tab: look.tab, image: source.image, keypoints: sourceEditor.pose };
    source.grid = (await (await post("source", body)).json()).grid;
    source.version += 1;
  } catch (error) {
    source.dirty = true;
    throw error;
  }
}

function setSource({ image, keypoints }) {
  source.image = sourceEditor.image = image;
  source.dirty = true;
  sourceEditor.set(keypoints);
  remember();
  refresh();
}

function setPose(pose) {
  stop();
  target.set(pose);
  remember();
  refresh();
}

// Undo and redo: a state is the source and both poses.
function remember() {
  const state = { image: source.image, poses: JSON.stringify([sourceEditor.pose, target.pose]) };
  const now = history.states[history.at];
  showTrays();
  if (now && now.image === state.image && now.poses === state.poses) return;
  history.states.splice(history.at + 1, Infinity, state);
  history.at = history.states.length - 1;
  showHistory();
}

function travel(step) {
  const state = history.states[history.at + step];
  if (!state) return;
  stop();
  history.at += step;
  const [sourcePose, targetPose] = JSON.parse(state.poses);
  source.dirty ||= state.image !== source.image || JSON.stringify(sourcePose) !== JSON.stringify(sourceEditor.pose);
  source.image = sourceEditor.image = state.image;
  sourceEditor.set(sourcePose);
  target.set(targetPose);
  showTrays();
  showHistory();
  refresh();
}

function showHistory() {
  $("undo").disabled = history.at <= 0;
  $("redo").disabled = history.at + 1 >= history.states.length;
}

function showTrays() {
  for (const [id, editor] of Object.entries(editors)) {
    const hidden = look.joints.map((name, joint) => ({ name, joint })).filter(({ joint }) => !editor.pose[joint]);
    const buttons = hidden.map(({ name, joint }) => button(`+ ${name}`, () => editor.restore(joint)));
    $(id).querySelector(".tray").replaceChildren(...buttons);
  }
}

function button(text, action) {
  const made = document.createElement("button");
  made.append(text);
  made.addEventListener("click", attempt(action));
  return made;
}

// Attention: fetched once for each image, block and head.
async function showAttention(event) {
  map.pointer = event;
  if (busy || !shown || !look.server) return;
  const block = Number($("block").value);
  const head = $("head").value ? Number($("head").value) : null;
  const key = JSON.stringify({ ...shown, block, head });
  if (map.key !== key) {
    map.key = key;
    map.levels = null;
    const response = await post("attention", { tab: look.tab, keypoints: shown.keypoints, block, head }).catch((error) => { map.key = null; throw error; });
    const levels = new Uint8Array(await response.arrayBuffer());
    if (map.key === key) map.levels = levels;
  }
  if (map.levels && map.pointer && !busy) drawAttention(map.pointer);
}

function drawAttention(pointer) {
  const [rows, columns] = source.grid;
  const [fx, fy] = fractionAt(pointer);
  if (fx < 0 || fx >= 1 || fy < 0 || fy >= 1) return hideAttention();
  const token = Math.floor(fy * rows) * columns + Math.floor(fx * columns);
  const levels = map.levels.subarray(token * rows * columns, (token + 1) * rows * columns);
  drawMap(levels, rows, columns);
  const peak = levels.indexOf(255);
  drawArrow(pointer, ((peak % columns) + 0.5) / columns, (Math.floor(peak / columns) + 0.5) / rows);
}

// Where the source image is on the screen: its zoom moves it.
function sourceBox() {
  const { a, d, e, f } = $("source").getScreenCTM();
  return { left: e, top: f, width: a * look.size[1], height: d * look.size[0] };
}

// Where an event is in the generated image, which is centered in its element: fractions of width and height.
function fractionAt(event) {
  const box = $("generated").getBoundingClientRect();
  const scale = Math.min(box.width / look.size[1], box.height / look.size[0]);
  const [x, y] = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  return [0.5 + x / (look.size[1] * scale), 0.5 + y / (look.size[0] * scale)];
}

// The darker the source, the smaller the weight.
function drawMap(levels, rows, columns) {
  const small = new OffscreenCanvas(columns, rows);
  const data = new ImageData(columns, rows);
  levels.forEach((level, i) => { data.data[4 * i + 3] = 0.75 * (255 - level); });
  small.getContext("2d").putImageData(data, 0, 0);
  const canvas = $("map");
  [canvas.height, canvas.width] = look.size.map((length) => 4 * length);
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
  canvas.hidden = false;
  const [box, view] = [sourceBox(), $("source").getBoundingClientRect()];
  const place = { left: box.left - view.left, top: box.top - view.top, width: box.width, height: box.height };
  for (const [key, value] of Object.entries(place)) canvas.style[key] = `${value}px`;
}

function drawArrow(event, fx, fy) {
  const box = sourceBox();
  const [x, y] = [box.left + fx * box.width, box.top + fy * box.height];
  const [line, circle] = $("arrow").children;
  setAttributes(line, { x1: event.clientX, y1: event.clientY, x2: x, y2: y });
  setAttributes(circle, { cx: x, cy: y });
  $("arrow").style.display = "block";
}

function hideAttention() {
  $("map").hidden = true;
  $("arrow").style.display = "none";
}

// Files
const MAX_FILE = 16 * 2 ** 20;

function checkFile(file) {
  if (file.size > MAX_FILE) throw new Error(`${file.name}: more than 16 MB; use a smaller file`);
}

async function framePhoto(file) {
  checkFile(file);
  if (look.estimates) say("looking for the person in the photo …");
  const framed = await (await post("photo", file)).json();
  say(framed.advice.join("\n"));
  return framed;
}

async function usePhoto(file) {
  setSource(await framePhoto(file));
  if (!look.estimates && !$("edit-source").checked) $("edit-source").click();
}

async function importPose(file) {
  checkFile(file);
  setPose((await (await post("import", file)).json()).keypoints);
}

async function exportPose(format, name) {
  download(await (await post("export", { format, keypoints: target.pose })).blob(), name);
}

async function exportGif() {
  if (source.dirty) await sendSource();
  say(`generating ${sequence.length} images …`);
  download(await (await post("animation", { tab: look.tab, poses: sequence })).blob(), "animation.gif");
  say("");
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// The slider between two poses, and the walk
async function setEnd(number) {
  ends[number] = structuredClone(target.pose);
  if (!ends[0] || !ends[1]) return say(`pose ${"AB"[number]} is set; set the other one too`);
  setSequence((await (await post("interpolate", { poses: ends, between: 22 })).json()).poses);
}

function setSequence(poses) {
  sequence = poses;
  $("slider").max = poses.length - 1;
  $("slider").value = 0;
  target.set(poses[0]);
  showSlider();
  remember();
  refresh();
}

function showSlider() {
  for (const id of ["slider", "play", "export-gif"]) $(id).disabled = sequence.length < 2;
}

function slide() {
  target.set(sequence[Number($("slider").value)]);
  refresh();
}

function play() {
  if (player) {
    stop();
    return remember();
  }
  $("play").textContent = "Stop";
  player = setInterval(() => {
    if (busy) return; // a slow network shows every pose, later
    $("slider").value = (Number($("slider").value) + 1) % sequence.length;
    slide();
  }, 1000 / look.fps);
}

function stop() {
  clearInterval(player);
  player = null;
  $("play").textContent = "Play";
}

// Set up the page
function thumbnail(pose) {
  const svg = element("svg", { viewBox: `0 0 ${look.size[1]} ${look.size[0]}` });
  drawSkeleton(svg, pose, look);
  return svg;
}

function fill(strip, label, contents, action) {
  contents.forEach((content, i) => {
    const made = button(content, () => action(i));
    made.setAttribute("aria-label", `${label} ${i + 1}`);
    $(strip).append(made);
  });
}

function image(url) {
  return Object.assign(new Image(), { src: url, alt: "" });
}

fill("examples", "person", look.examples.map((example) => image(example.image)), (i) => setSource(look.examples[i]));
fill("presets", "pose", look.presets.map(thumbnail), (i) => setPose(look.presets[i]));
$("name").textContent = look.name;
$("latency").textContent = look.loading ?? "";
for (const canvas of [$("generated"), $("map")]) [canvas.height, canvas.width] = look.size;
for (let i = look.blocks - 1; i >= 0; i--) $("block").add(new Option(i, i));
$("head").add(new Option("mean", ""));
for (let i = 0; i < look.heads; i++) $("head").add(new Option(i, i));

const clicks = {
  undo: () => travel(-1), redo: () => travel(1),
  "export-json": () => exportPose("dwpose", "pose.json"), "export-csv": () => exportPose("patn", "pose.csv"),
  "export-png": () => $("generated").toBlob((blob) => download(blob, "generated.png")),
  from: () => setEnd(0), to: () => setEnd(1), walk: () => setSequence(look.walk), play, "export-gif": exportGif,
  message: () => {}, // it disappears
};
const tools = {
  hide: (editor) => editor.hide(), mirror: (editor) => editor.mirror(),
  smaller: (editor) => editor.turn(1 / 1.05, 0), larger: (editor) => editor.turn(1.05, 0),
  left: (editor) => editor.turn(1, -5), right: (editor) => editor.turn(1, 5),
};
for (const [id, editor] of Object.entries(editors)) {
  $(id).append($("tools").content.cloneNode(true));
  for (const made of $(id).querySelectorAll("[data-tool]")) {
    made.addEventListener("click", attempt(() => tools[made.dataset.tool](editor)));
  }
}
for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", attempt(action));
const files = { photo: usePhoto, import: importPose, "photo-pose": async (file) => setPose((await framePhoto(file)).keypoints) };
for (const [id, action] of Object.entries(files)) {
  $(id).addEventListener("change", attempt(async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) await action(file);
  }));
}
$("photo-pose").parentElement.hidden = !look.estimates;
for (const part of document.querySelectorAll("[data-server]")) part.hidden = !look.server;
$("edit-source").addEventListener("change", () => {
  sourceEditor.enable($("edit-source").checked);
  $("source-tools").hidden = !$("edit-source").checked;
});
$("slider").addEventListener("input", () => { stop(); slide(); });
$("slider").addEventListener("change", remember);
for (const name of ["pointermove", "pointerdown"]) {
  $("generated").addEventListener(name, (event) => showAttention(event).catch((error) => say(error.message)));
}
$("generated").addEventListener("pointerleave", () => { map.pointer = null; hideAttention(); });
document.addEventListener("scroll", hideAttention);
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
  event.preventDefault();
  travel(event.shiftKey ? 1 : -1);
});
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
document.addEventListener("drop", attempt(async ({ dataTransfer: { files: [file] } }) => {
  if (file) await (/\.(json|csv|txt)$/i.test(file.name) ? importPose : usePhoto)(file);
}));
window.addEventListener("pagehide", () => {
  close(look.tab);
  source.dirty = true; // a page that the browser shows again sends its source again
});

sourceEditor.enable(false);
showSlider();
const knownJoints = (pose) => pose.filter(Boolean).length;
target.set(look.presets.reduce((best, pose) => (knownJoints(pose) > knownJoints(best) ? pose : best)));
setSource(look.examples[0]);
