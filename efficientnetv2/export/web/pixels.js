// Turns a picture into what the network sees, number by number as evaluation does in Python
// (efficientnetv2/data/decode.py). A canvas only hands out pixels here: its own resizing differs
// from browser to browser, and from TensorFlow's.
"use strict";

const Pixels = (() => {
  const STRIP = 1 << 22; // pixels read at once: phones do not make larger canvases than 2^24
  const CROP_PADDING = 32; // the published crop leaves S / (S + 32) of the shorter side
  const WHOLE_IMAGE_FROM = 320; // V2 networks evaluated at this size or more see the whole image
  const LUMA = [0.299, 0.587, 0.114];
  const round = Math.fround; // TensorFlow computes positions in float32

  // Reads the pixels of an ImageBitmap or a video: {width, height, data}, RGBA without transparency.
  function read(source, width, height, background = "white") {
    const data = new Uint8ClampedArray(4 * width * height);
    const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, rows];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    for (let top = 0; top < height; top += rows) {
      const count = Math.min(rows, height - top);
      context.fillStyle = background;
      context.fillRect(0, 0, width, rows);
      context.drawImage(source, 0, top, width, count, 0, 0, width, count);
      data.set(context.getImageData(0, 0, width, count).data, 4 * width * top);
    }
    return { width, height, data };
  }

  // Returns the part of an image that evaluation sees.
  function visiblePart({ width, height }, { image_size: size, resize, preprocess }) {
    const shorter = Math.min(width, height);
    const whole = { left: 0, top: 0, width, height };
    if (resize === "crop") {
      const [left, top] = [(width - shorter) >> 1, (height - shorter) >> 1];
      return { left, top, width: shorter, height: shorter };
    }
    if (resize !== "published" || (preprocess === "v2" && size >= WHOLE_IMAGE_FROM)) return whole;
    const share = round(size / (size + CROP_PADDING));
    const side = Math.max(1, Math.trunc(round(share * shorter)));
    const up = preprocess === "v2" ? 0 : 1; // V1 rounds half a pixel up
    const [left, top] = [(width - side + up) >> 1, (height - side + up) >> 1];
    return { left, top, width: side, height: side };
  }

  // For each place on an axis of the result: which pixels it is made of, and their weights.
  const AXES = {
    // tf.image.resize: corners of pixels aligned, no antialiasing
    bilinear: (from, to) => {
      const scale = round(from / to);
      return Array.from({ length: to }, (_, place) => {
        const position = round(round(round(place + 0.5) * scale) - 0.5);
        const floor = Math.floor(position);
        const share = round(position - floor);
        const last = from - 1;
        const lower = Math.min(Math.max(floor, 0), last);
        return { pixels: [lower, Math.min(Math.ceil(position), last)], weights: [1 - share, share] };
      });
    },
    // ResizeBicubic of TensorFlow 1: centres of the first pixels aligned, weights from a table
    bicubic: (from, to) => {
      const scale = round(from / to);
      const [a, steps] = [-0.75, 1024];
      const near = (x) => ((a + 2) * x - (a + 3)) * x * x + 1;
      const far = (x) => ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
      return Array.from({ length: to }, (_, place) => {
        const position = round(place * scale);
        const floor = Math.floor(position);
        const share = roundHalfToEven(round(position - floor) * steps) / steps;
        const pixels = [-1, 0, 1, 2].map((n) => Math.min(Math.max(floor + n, 0), from - 1));
        return { pixels, weights: [far(1 + share), near(share), near(1 - share), far(2 - share)] };
      });
    },
  };

  function roundHalfToEven(x) {
    const nearest = Math.round(x);
    return Math.abs(x % 1) === 0.5 && nearest % 2 ? nearest - 1 : nearest;
  }

  // Resizes a part of an image: Float32Array, [height, width, 3].
  function resized(image, part, width, height, interpolation) {
    const axis = AXES[interpolation];
    const [columns, rows] = [axis(part.width, width), axis(part.height, height)];
    const result = new Float32Array(3 * width * height);
    let index = 0;
    for (const row of rows) {
      const lines = row.pixels.map((y) => 4 * (image.width * (part.top + y) + part.left));
      for (const column of columns) {
        for (let colour = 0; colour < 3; colour++) {
          let sum = 0;
          for (let j = 0; j < lines.length; j++) {
            let line = 0;
            for (let i = 0; i < column.pixels.length; i++) {
              line += column.weights[i] * image.data[lines[j] + 4 * column.pixels[i] + colour];
            }
            sum += row.weights[j] * line;
          }
          result[index++] = sum;
        }
      }
    }
    return result;
  }

  // Returns the size of an image whose longer side becomes `side`; halves of a pixel round up.
  function fitted({ width, height }, side) {
    const longer = Math.max(width, height);
    const fit = (length) => Math.max(1, Math.floor((2 * length * side + longer) / (2 * longer)));
    return [fit(width), fit(height)];
  }

  // Returns the input of the network: Float32Array, [S, S, C].
  function prepare(image, metadata) {
    const { image_size: size, channels, mean, deviation } = metadata;
    const interpolation = metadata.preprocess === "v1" ? "bicubic" : "bilinear";
    const part = visiblePart(image, metadata);
    const isBoxed = metadata.resize === "letterbox";
    const [width, height] = isBoxed ? fitted(image, size) : [size, size];
    const colours = resized(image, part, width, height, interpolation);
    const input = new Float32Array(channels * size * size);
    if (isBoxed) input.fill(channels === 1 ? mean[0] : 128);
    const [left, top] = [(size - width) >> 1, (size - height) >> 1];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const from = 3 * (y * width + x);
        const to = channels * ((top + y) * size + left + x);
        if (channels === 1) {
          input[to] = LUMA.reduce((sum, weight, n) => sum + weight * colours[from + n], 0);
        } else {
          for (let n = 0; n < 3; n++) input[to + n] = colours[from + n];
        }
      }
    }
    const { input_range: range } = metadata;
    if (range === "normalised") {
      return input.map((value, i) => (value - mean[i % channels]) / deviation[i % channels]);
    }
    return range[1] === 1 ? input.map((value) => value / 255) : input;
  }

  return { read, prepare };
})();
