// Runs transfer.onnx. A message {image, source_keypoints, target_keypoints, size} brings the port for its answer.

import * as ort from "./ort/ort.js";

ort.env.wasm.numThreads = 1; // several need headers that most static hosts do not send
const session = ort.InferenceSession.create(new URL("./transfer.onnx", import.meta.url).href, { executionProviders: ["wasm"] });
session.catch(() => {}); // each message reports the error

self.onmessage = async ({ data: { image, source_keypoints, target_keypoints, size }, ports: [port] }) => {
  try {
    const inputs = {
      image: new ort.Tensor("uint8", image, [1, ...size, 3]),
      source_keypoints: new ort.Tensor("float32", source_keypoints, [1, 18, 2]),
      target_keypoints: new ort.Tensor("float32", target_keypoints, [1, 18, 2]),
    };
    const { generated } = await (await session).run(inputs);
    port.postMessage({ pixels: generated.data });
  } catch (error) {
    port.postMessage({ error: String(error.message ?? error) }); // WebAssembly may throw a number
  }
};
