// Replaces studio_page/transport.js where there is no server: answers the page's requests itself. worker.js runs the
// network in the browser.

// what the page shows first, sizes and colors: describe_offers in inference/studio_offers.py
const offers = await (await fetch(new URL("start.json", import.meta.url))).json();
const [height, width] = offers.size;
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const broken = new Promise((_, reject) => {
  worker.onerror = () => reject(cannotRun("worker.js or ort/ort.js could not be loaded"));
});
broken.catch(() => {}); // each request reports the error
const answers = { start: () => offers, photo: framePhoto, source: setSource, image: generate };
let source = null; // of the latest request "source": {image: R, G, B bytes, keypoints}

// Answers with a Response, as the server does.
export async function post(name, body = {}) {
  if (!answers[name]) throw new Error("this page has no server; scripts/studio.py can do that");
  const answer = await answers[name](body);
  return new Response(answer instanceof Blob ? answer : JSON.stringify(answer));
}

export function close() {} // the browser frees the source

// Fit a whole photo into the stored size; its border is continued.
async function framePhoto(file) {
  const photo = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name}: not a photo that this browser can decode`);
  });
  const scale = Math.min(width / photo.width, height / photo.height);
  const [w, h] = [photo.width, photo.height].map((length) => Math.max(1, Math.round(length * scale)));
  const [x, y] = [Math.floor((width - w) / 2), Math.floor((height - h) / 2)];
  const { canvas, context } = makeCanvas();
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // behind transparent pixels
  context.fillRect(x, y, w, h);
  context.drawImage(photo, x, y, w, h);
  context.drawImage(canvas, x, 0, 1, height, 0, 0, x, height);
  context.drawImage(canvas, x + w - 1, 0, 1, height, x + w, 0, width - x - w, height);
  context.drawImage(canvas, 0, y, width, 1, 0, 0, width, y);
  context.drawImage(canvas, 0, y + h - 1, width, 1, 0, y + h, width, height - y - h);
  const image = canvas.toDataURL();
  const advice = ["place the joints of the source by hand: this page has no estimator"];
  return { image, keypoints: offers.examples[0].keypoints, advice };
}

async function setSource({ image, keypoints }) {
  const element = Object.assign(new Image(), { src: image });
  await element.decode();
  const { context } = makeCanvas();
  context.drawImage(element, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const rgb = data.filter((_, i) => i % 4 < 3);
  source = { image: new Uint8Array(rgb), keypoints };
  return { grid: null };
}

async function generate({ keypoints }) {
  const poses = { source_keypoints: toNumbers(source.keypoints), target_keypoints: toNumbers(keypoints) };
  const rgb = await run({ image: source.image, ...poses, size: offers.size });
  const pixels = new ImageData(width, height);
  pixels.data.fill(255);
  rgb.forEach((level, i) => { pixels.data[4 * Math.floor(i / 3) + (i % 3)] = level; });
  const { canvas, context } = makeCanvas();
  context.putImageData(pixels, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve));
}

function run(inputs) {
  const { port1, port2 } = new MessageChannel();
  const done = new Promise((resolve, reject) => {
    port1.onmessage = ({ data: { pixels, error } }) => (error ? reject(cannotRun(error)) : resolve(pixels));
  });
  worker.postMessage(inputs, [port2]);
  return Promise.race([done, broken]);
}

function cannotRun(reason) {
  return new Error(`the network does not run in this browser: ${reason}`);
}

function toNumbers(pose) {
  return Float32Array.from(pose.flatMap((joint) => joint ?? [NaN, NaN]));
}

function makeCanvas() {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  return { canvas, context: canvas.getContext("2d", { willReadFrequently: true }) };
}
