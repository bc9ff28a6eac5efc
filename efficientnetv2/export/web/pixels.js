// Turns a picture into what the network sees, number by number as evaluation does in Python
// (efficientnetv2/data/decode.py). A canvas only hands out pixels here: its own resizing differs
// from browser to browser, and from TensorFlow's.
"use strict";

const Pixels = (() => {
  const STRIP = 1 << 22; // pixels read at once: phones do not make larger canvases than 2^24
  const CROP_PADDING = 32; // the published crop leaves S / (S + 32) of the shorter side
  const WHOLE_IMAGE_FROM = 320; // V2 networks evaluated at this size or more see the whole image
  const TORCH_CROP = 0.875; // torchvision's and timm's networks see 224 of 256 pixels
  const LONGEST_ENLARGED = 8; // times the shorter side, of what is resized before such a crop
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
  function visiblePart({ width, height }, { image_size: size, resize, preprocess, crop_pct }) {
    const shorter = Math.min(width, height);
    const whole = { left: 0, top: 0, width, height };
    if (resize === "crop") {
      const [left, top] = [(width - shorter) >> 1, (height - shorter) >> 1];
      return { left, top, width: shorter, height: shorter };
    }
    const seesAll = preprocess === "v2" && size >= WHOLE_IMAGE_FROM && crop_pct === undefined;
    if (resize !== "published" || seesAll) return whole;
    const share = round(crop_pct ?? size / (size + CROP_PADDING));
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

  // tf.image.resize with antialiasing, as Pillow does it: a pixel is a mean over all that it covers.
  const antialiased = (radius, kernel) => (from, to) => {
    const scale = from / to;
    const spread = Math.max(scale, 1);
    return Array.from({ length: to }, (_, place) => {
      const centre = (place + 0.5) * scale;
      const first = Math.max(Math.ceil(centre - radius * spread - 0.5), 0);
      const last = Math.min(Math.floor(centre + radius * spread - 0.5), from - 1);
      const pixels = Array.from({ length: last - first + 1 }, (_, n) => first + n);
      const weights = pixels.map((pixel) => kernel(Math.abs((pixel + 0.5 - centre) / spread)));
      const sum = weights.reduce((total, weight) => total + weight, 0);
      return { pixels, weights: weights.map((weight) => weight / sum) };
    });
  };
  AXES.torch_bilinear = antialiased(1, (x) => Math.max(0, 1 - x));
  AXES.torch_bicubic = antialiased(2, (x) => {
    if (x >= 2) return 0;
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : ((-0.5 * x + 2.5) * x - 4) * x + 2;
  });

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

  // Resizes as torchvision and timm do, one direction after the other; of the result, the window
  // {left, top, width, height}. Colours are whole numbers after each direction.
  function resizedByTorch(image, part, [width, height], window, interpolation, isRounded) {
    const [axis, clip] = [AXES[interpolation], (x) => Math.min(Math.max(x, 0), 255)];
    const whole = isRounded ? (x) => roundHalfToEven(clip(x)) : (x) => x;
    const columns = axis(part.width, width).slice(window.left, window.left + window.width);
    const rows = axis(part.height, height).slice(window.top, window.top + window.height);
    const first = rows[0].pixels[0];
    const count = rows.at(-1).pixels.at(-1) + 1 - first;
    const narrow = new Float32Array(3 * window.width * count);
    for (let y = 0; y < count; y++) {
      const line = 4 * (image.width * (part.top + first + y) + part.left);
      columns.forEach(({ pixels, weights }, x) => {
        for (let colour = 0; colour < 3; colour++) {
          let sum = 0;
          pixels.forEach((pixel, n) => (sum += weights[n] * image.data[line + 4 * pixel + colour]));
          narrow[3 * (y * window.width + x) + colour] = whole(sum);
        }
      });
    }
    const result = new Float32Array(3 * window.width * window.height);
    const length = 3 * window.width;
    rows.forEach(({ pixels, weights }, y) => {
      for (let place = 0; place < length; place++) {
        let sum = 0;
        pixels.forEach((pixel, n) => (sum += weights[n] * narrow[(pixel - first) * length + place]));
        result[y * length + place] = whole(sum);
      }
    });
    return result;
  }

  // Returns what torchvision's evaluation crop leaves: the whole image is resized, then cut.
  function croppedByTorch(image, { image_size: size, crop_pct: share }, interpolation, isRounded) {
    const shorter = Math.min(image.width, image.height);
    const [width, height] = [image.width, image.height].map((length) =>
      Math.min(length, LONGEST_ENLARGED * shorter),
    );
    const [left, top] = [(image.width - width) >> 1, (image.height - height) >> 1];
    const target = Math.floor(size / (share ?? TORCH_CROP) + 1e-3);
    const resized = [width, height].map((length) => Math.floor((length * target) / shorter));
    const [x, y] = resized.map((length) => roundHalfToEven((length - size) / 2));
    const window = { left: x, top: y, width: size, height: size };
    const part = { left, top, width, height };
    return resizedByTorch(image, part, resized, window, interpolation, isRounded);
  }

  // Returns the size of an image whose longer side becomes `side`; halves of a pixel round up.
  function fitted({ width, height }, side) {
    const longer = Math.max(width, height);
    const fit = (length) => Math.max(1, Math.floor((2 * length * side + longer) / (2 * longer)));
    return [fit(width), fit(height)];
  }

  // Returns the colours of what evaluation sees of an image: Float32Array, [height, width, 3].
  function seen(image, width, height, metadata) {
    const { preprocess, resize, channels } = metadata;
    if (!preprocess.startsWith("torch_")) {
      const interpolation = preprocess === "v1" ? "bicubic" : "bilinear";
      return resized(image, visiblePart(image, metadata), width, height, interpolation);
    }
    const interpolation = preprocess.replace("_half", ""); // which normalises, and sees the same
    const isRounded = channels === 3;
    if (resize === "published") return croppedByTorch(image, metadata, interpolation, isRounded);
    const part = visiblePart(image, metadata);
    const window = { left: 0, top: 0, width, height };
    return resizedByTorch(image, part, [width, height], window, interpolation, isRounded);
  }

  // Returns the input of the network: Float32Array, [S, S, C].
  function prepare(image, metadata) {
    const { image_size: size, channels, mean, deviation } = metadata;
    const isBoxed = metadata.resize === "letterbox";
    const [width, height] = isBoxed ? fitted(image, size) : [size, size];
    const colours = seen(image, width, height, metadata);
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
