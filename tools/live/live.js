// A mini-CLIP that runs in the reader's browser. What it computes is in the lessons; `DATA` is in data.js, which
// tools/live writes. No file is fetched, since a page that was opened from a disk may fetch none.
"use strict";

const PICTURE = 32; // pixels that the model sees, each way
const SHEET = 320; // pixels of the sheet to draw on
const PAPER = "rgb(216, 214, 210)"; // as bright as that of the drawings which the model learned from
const TOP = 8;

const find = (selector, within = document) => within.querySelector(selector);

/** An element with properties, attributes (in `style`: custom properties) and children. */
function element(tag, { style = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(style)) made.style.setProperty(name, value);
  made.append(...children);
  return made;
}

/** A function that runs `task` after each call, never twice at the same time, and only once for calls that came meanwhile. */
function latest(task) {
  let running = false;
  let wanted = false;
  return async () => {
    wanted = true;
    if (running) return;
    running = true;
    try {
      while (wanted) {
        wanted = false;
        await task();
      }
    } finally {
      running = false;
    }
  };
}

// ---------------------------------------------------------------------------------------------------------------------
// The model

/** The bytes of one of the files in `DATA`, where each is packed by gzip and written in base64. */
async function unpack(name) {
  const text = atob(DATA.files[name]);
  const packed = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) packed[k] = text.charCodeAt(k);
  const gzip = new DecompressionStream("gzip");
  const writer = gzip.writable.getWriter();
  writer.write(packed);
  writer.close();
  return new Response(gzip.readable).arrayBuffer();
}

/** ONNX Runtime, in one thread of WebAssembly: more would need a server that sends headers of its own. */
async function startRuntime() {
  const [code, wasm] = await Promise.all([unpack("runtime.mjs"), unpack("runtime.wasm")]);
  const runtime = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  runtime.env.wasm.numThreads = 1;
  runtime.env.wasm.wasmBinary = wasm;
  return runtime;
}

/** Lower-case words and single punctuation marks, as `split_words` of miniclip_utils/tokenizer.py. */
function splitWords(text) {
  return text.toLowerCase().match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu) ?? [];
}

/** A model, of which each tower is opened before its use. Features come as rows, Float32Arrays of norm 1. */
class Clip {
  constructor(runtime, name) {
    this.runtime = runtime;
    this.name = name;
    this.description = DATA.models[name]; // its clip.json
    this.numbers = new Map(this.description.words.map((word, number) => [word, number]));
    this.towers = {};
  }

  async open(tower) {
    const model = new Uint8Array(await unpack(`${this.name}/${tower}.onnx`));
    this.towers[tower] = await this.runtime.InferenceSession.create(model);
  }

  async run(tower, type, numbers, shape) {
    const { features } = await this.towers[tower].run({ inputs: new this.runtime.Tensor(type, numbers, shape) });
    const [rows, length] = features.dims;
    return Array.from({ length: rows }, (_, row) => features.data.slice(row * length, (row + 1) * length));
  }

  unknownWords(text) {
    return [...new Set(splitWords(text).filter((word) => !this.numbers.has(word)))];
  }

  /** [SOS] word … word [EOS] [PAD] …, as `WordTokenizer`. The caller sees to it that the text is short enough. */
  tokens(text) {
    const number = (word) => this.numbers.get(word) ?? this.numbers.get("[UNK]");
    const numbers = ["[SOS]", ...splitWords(text), "[EOS]"].map(number);
    const padding = Array(this.description.context_length - numbers.length).fill(number("[PAD]"));
    return [...numbers, ...padding].map(BigInt);
  }

  encodeTexts(texts) {
    const numbers = BigInt64Array.from(texts.flatMap((text) => this.tokens(text)));
    return this.run("text", "int64", numbers, [texts.length, this.description.context_length]);
  }

  /** One picture: 3 · 32 · 32 bytes, all red values first, then all green and all blue ones. */
  async encodePicture(bytes) {
    const [features] = await this.run("image", "uint8", bytes, [1, 3, PICTURE, PICTURE]);
    return features;
  }
}

/** The dot product, which is the cosine of vectors of norm 1. */
function dot(a, b) {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += a[k] * b[k];
  return sum;
}

/** The indices of the largest values, largest first. */
function largest(values, count) {
  return [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, count);
}

// ---------------------------------------------------------------------------------------------------------------------
// Pictures and matrices

/** The drawings or the photographs: what each shows, its vector, and the sheet that holds them all. */
async function loadGallery(name) {
  const gallery = DATA.galleries[name]; // labels, names, neverSeen, columns
  const numbers = new Float32Array(await unpack(`${name}.features`));
  const length = numbers.length / gallery.labels.length;
  const features = gallery.labels.map((_, row) => numbers.subarray(row * length, (row + 1) * length));
  const sheet = new Blob([await unpack(`${name}.png`)], { type: "image/png" });
  document.body.style.setProperty(`--${name}`, `url(${URL.createObjectURL(sheet)})`); // for live.css
  return { name, ...gallery, features, sheet };
}

/** Where a picture lies on its sheet. */
const placeOnSheet = ({ columns }, index) => [index % columns, Math.floor(index / columns)];

function picture(gallery, index) {
  const [column, row] = placeOnSheet(gallery, index);
  const style = { "--columns": gallery.columns, "--column": column, "--row": row };
  const made = element("span", { className: `picture ${gallery.name}`, style });
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", gallery.names[gallery.labels[index]]);
  return made;
}

/** A table with a picture before each row. `cell` gives for row and column {text, kind, strength, title}. */
function matrix(pictures, captions, cell) {
  const heading = (scope, child) => element("th", { scope }, child);
  const head = element("tr", {}, element("td"), ...captions.map((text) => heading("col", element("span", {}, text))));
  const rows = pictures.map((shown, i) => {
    const cells = captions.map((_, j) => {
      const { text, kind, strength, title } = cell(i, j);
      return element("td", { className: kind, title, style: { "--strength": strength } }, text);
    });
    return element("tr", {}, heading("row", shown), ...cells);
  });
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

const percent = (share) => `${(100 * share).toFixed(0)}%`;

// ---------------------------------------------------------------------------------------------------------------------
// The parts of the page. Each shows what it has, and again after each change.

/** What is wrong with a sentence, in the words of the notebooks; undefined if the model can read it. */
function complaint(clip, sentence) {
  const words = splitWords(sentence);
  const most = clip.description.context_length - 2;
  if (!sentence.trim()) return "The box is empty: describe a picture.";
  if (words.length > most) {
    return `The sentence has ${words.length} words and punctuation marks, and this model reads at most ${most}: shorten it.`;
  }
  if (words.every((word) => !clip.numbers.has(word))) {
    return `The model knows none of the words in “${sentence}”: describe the picture in words that it has learned.`;
  }
}

async function promptBox(section, clip, gallery) {
  const box = find("input", section);
  const show = latest(async () => {
    const sentence = box.value;
    const wrong = complaint(clip, sentence);
    const unknown = wrong ? [] : clip.unknownWords(sentence).map((word) => `“${word}”`);
    const never = `It never learned ${unknown.join(", ")}: to it, all such words are the same.`;
    find(".note", section).textContent = wrong ?? (unknown.length ? never : "");
    if (wrong) {
      find(".found", section).replaceChildren();
      return;
    }
    const [query] = await clip.encodeTexts([sentence]);
    const cosines = gallery.features.map((features) => dot(features, query));
    const items = largest(cosines, TOP).map((index) => {
      const label = gallery.labels[index];
      const name = element("span", {}, gallery.names[label]);
      const cosine = element("span", { className: "cosine" }, cosines[index].toFixed(2));
      const mark = gallery.neverSeen.includes(label) ? element("em", {}, "a never-seen pair") : "";
      return element("li", {}, cosine, picture(gallery, index), name, mark);
    });
    find(".found", section).replaceChildren(...items);
  });
  box.addEventListener("input", show);
  for (const button of section.querySelectorAll(".examples button")) {
    button.addEventListener("click", () => {
      box.value = button.textContent;
      show();
    });
  }
  find(".words", section).textContent = clip.description.words.slice(4).join(" ");
  await show();
}

/** The sheet's pixels as the model wants them: each is the mean of a square of the sheet's own. */
function picturePixels(context) {
  const { data } = context.getImageData(0, 0, SHEET, SHEET);
  const side = SHEET / PICTURE;
  const sums = new Float64Array(3 * PICTURE * PICTURE);
  for (let y = 0; y < SHEET; y++) {
    for (let x = 0; x < SHEET; x++) {
      const pixel = Math.floor(y / side) * PICTURE + Math.floor(x / side);
      for (let channel = 0; channel < 3; channel++) {
        sums[channel * PICTURE * PICTURE + pixel] += data[4 * (y * SHEET + x) + channel];
      }
    }
  }
  return Uint8Array.from(sums, (sum) => Math.round(sum / (side * side)));
}

/** Shows the pixels that the model sees. */
function showPixels(canvas, bytes) {
  const image = new ImageData(PICTURE, PICTURE);
  for (let pixel = 0; pixel < PICTURE * PICTURE; pixel++) {
    const color = [0, 1, 2].map((channel) => bytes[channel * PICTURE * PICTURE + pixel]);
    image.data.set([...color, 255], 4 * pixel);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

async function drawingSheet(section, clip, gallery) {
  const names = gallery.names;
  const texts = await clip.encodeTexts(names.map((name) => `a photo of a ${name}.`));
  const canvas = find("#sheet", section);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pen = { x: SHEET / 2, y: SHEET / 2, isDown: false, mark: find("#pen", section) };
  const penSize = () => (SHEET / PICTURE) * find("#pen-size", section).valueAsNumber;
  const chosenColor = () => find("#colors :checked", section).value;
  let isEmpty = true;

  const show = latest(async () => {
    const bytes = picturePixels(context);
    showPixels(find("#seen", section), bytes);
    if (isEmpty) {
      find("#named", section).textContent = "Nothing is drawn yet.";
      find("#names", section).replaceChildren();
      return;
    }
    const features = await clip.encodePicture(bytes);
    const cosines = texts.map((text) => dot(text, features));
    const best = largest(cosines, 5);
    const mark = gallery.neverSeen.includes(best[0]) ? ", a pair that it has never seen" : "";
    find("#named", section).textContent = `It says: ${names[best[0]]}${mark}`;
    const items = best.map((label) => {
      const bar = element("i", { style: { "--share": percent(Math.max(cosines[label], 0)) } });
      return element("li", {}, bar, element("span", {}, names[label]), element("span", {}, cosines[label].toFixed(2)));
    });
    find("#names", section).replaceChildren(...items);
  });

  function clear() {
    context.fillStyle = PAPER;
    context.fillRect(0, 0, SHEET, SHEET);
    isEmpty = true;
  }

  /** Draws from where the pen is to another place. */
  function strokeTo(x, y) {
    const [red, green, blue] = DATA.colors[chosenColor()];
    context.strokeStyle = `rgb(${red}, ${green}, ${blue})`;
    context.lineWidth = penSize();
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(pen.x, pen.y);
    context.lineTo(x + 0.01, y); // a line of no length would leave no dot
    context.stroke();
    isEmpty = false;
  }

  function movePen(x, y) {
    if (pen.isDown) strokeTo(x, y);
    Object.assign(pen, { x, y });
    const { style } = pen.mark;
    style.left = percent(x / SHEET);
    style.top = percent(y / SHEET);
    style.width = style.height = percent(penSize() / SHEET);
    pen.mark.classList.toggle("down", pen.isDown);
    if (pen.isDown) show();
  }

  const placeOf = (event) => [event.offsetX, event.offsetY].map((place) => (place * SHEET) / canvas.clientWidth);

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pen.mark.hidden = true;
    pen.isDown = false;
    movePen(...placeOf(event));
    pen.isDown = true;
    movePen(...placeOf(event)); // a dot
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) movePen(...placeOf(event));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      pen.isDown = false;
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], " ": [0, 0] };
    if (!(event.key in steps)) return;
    event.preventDefault(); // the page does not scroll
    pen.mark.hidden = false;
    if (event.key === " ") pen.isDown = !pen.isDown;
    const [right, down] = steps[event.key];
    const within = (place) => Math.min(Math.max(place, 0), SHEET);
    movePen(within(pen.x + (right * SHEET) / PICTURE), within(pen.y + (down * SHEET) / PICTURE));
  });
  canvas.addEventListener("focus", () => {
    pen.mark.hidden = !canvas.matches(":focus-visible");
    movePen(pen.x, pen.y);
  });
  canvas.addEventListener("blur", () => {
    pen.mark.hidden = true;
    pen.isDown = false;
  });

  // An example is one of the drawings, enlarged; at each click another one of its colour and shape.
  const drawings = await createImageBitmap(gallery.sheet);
  let clicks = 0;
  find("#example", section).addEventListener("click", () => {
    const wanted = `${chosenColor()} ${find("#example-shape", section).value}`;
    const like = [...gallery.labels.keys()].filter((index) => names[gallery.labels[index]].endsWith(wanted));
    const index = like[clicks++ % like.length];
    const [left, top] = placeOnSheet(gallery, index).map((place) => PICTURE * place);
    context.imageSmoothingEnabled = false;
    context.drawImage(drawings, left, top, PICTURE, PICTURE, 0, 0, SHEET, SHEET);
    isEmpty = false;
    show();
  });
  find("#clear", section).addEventListener("click", () => {
    clear();
    show();
  });

  for (const [name, color] of Object.entries(DATA.colors)) {
    const radio = element("input", { type: "radio", name: "color", value: name, checked: name === "red" });
    const swatch = element("i", { style: { background: `rgb(${color.join(", ")})` } });
    find("#colors", section).append(element("label", { className: "color" }, radio, swatch, name));
  }
  const shapes = [...new Set(names.map((name) => name.split(" ")[2]))];
  find("#example-shape", section).append(...shapes.map((name) => element("option", {}, name)));
  clear();
  await show();
}

/** As `temperature_matrix` of miniclip_utils/classroom/widgets.py: the tenth photograph of each of the ten kinds. */
async function temperatureSlider(section, clip, gallery) {
  const ten = gallery.names.map((_, label) => 20 * label + 9);
  const texts = await clip.encodeTexts(gallery.names.map((name) => `a photo of a ${name}.`));
  const cosines = ten.map((index) => texts.map((text) => dot(gallery.features[index], text)));
  const columns = cosines.map((_, j) => cosines.map((row) => row[j]));
  const slider = find("input", section);

  const logSum = (values) => {
    const most = Math.max(...values);
    return most + Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0));
  };
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  function show() {
    const scale = 10 ** slider.valueAsNumber;
    const scaled = (values) => values.map((value) => scale * value);
    const shares = cosines.map((row) => scaled(row).map((logit) => Math.exp(logit - logSum(scaled(row)))));
    const costs = ten.flatMap((_, k) => [cosines[k], columns[k]].map((line) => logSum(scaled(line)) - scale * line[k]));
    const chance = `Chance is ln ${ten.length} = ${Math.log(ten.length).toFixed(3)}.`;
    const ofTrue = percent(mean(shares.map((row, k) => row[k])));
    slider.setAttribute("aria-valuetext", scale.toFixed(1));
    find("output", section).textContent = scale.toFixed(1);
    find(".answer", section).textContent =
      `Loss ${mean(costs).toFixed(3)}. ${chance} The true text gets ${ofTrue} on average.`;
    const cell = (i, j) => {
      const kind = i === j ? "match" : "other";
      return { text: percent(shares[i][j]), kind, strength: 0.05 + 0.85 * shares[i][j], title: "" };
    };
    const pictures = ten.map((index) => picture(gallery, index));
    find(".matrix", section).replaceChildren(matrix(pictures, gallery.names, cell));
  }
  slider.addEventListener("input", show);
  show();
}

/** Random whole numbers below `end`, the same for the same seed (mulberry32, by Tommy Ettinger, in the public domain). */
function randomIndices(count, end, seed) {
  return Array.from({ length: count }, () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end);
  });
}

/** As `batch_explorer` of miniclip_utils/classroom/widgets.py, on the drawings of this page. */
function batchExplorer(section, gallery) {
  const [size, number] = [find("#pairs", section), find("#number", section)];

  function show() {
    const n = size.valueAsNumber;
    const chosen = randomIndices(n, gallery.labels.length, number.valueAsNumber);
    const from = Number(find("#says", section).value); // the first of the words size, colour, shape that is said
    const captions = chosen.map((index) => gallery.names[gallery.labels[index]].split(" ").slice(from).join(" "));
    const copies = captions.map((caption) => captions.filter((other) => other === caption).length);
    const offDiagonal = copies.reduce((sum, count) => sum + count - 1, 0);
    const floor = copies.reduce((sum, count) => sum + Math.log(count), 0) / n; // a row with k copies costs ln k
    find("#pairs-value", section).textContent = n;
    find("#number-value", section).textContent = number.value;
    find(".answer", section).textContent =
      `${offDiagonal} of ${n * n - n} cells off the diagonal are true pairs. Floor of the loss: ${floor.toFixed(2)}. ` +
      `Best diagonal accuracy: ${percent(new Set(captions).size / n)}.`;
    const cell = (i, j) => {
      if (captions[i] !== captions[j]) return { text: "", kind: "none", strength: 0, title: "no pair" };
      const title = i === j ? "the pair that was drawn" : "a true pair as well";
      return { text: "✓", kind: "match", strength: i === j ? 0.75 : 0.35, title };
    };
    const pictures = chosen.map((index) => picture(gallery, index));
    find(".matrix", section).replaceChildren(matrix(pictures, captions, cell));
  }
  section.addEventListener("input", show);
  show();
}

// ---------------------------------------------------------------------------------------------------------------------

async function start() {
  const [runtime, drawings] = await Promise.all([startRuntime(), loadGallery("drawings")]);
  const shapes = new Clip(runtime, "shapes");
  await shapes.open("text");
  await promptBox(find("#drawings"), shapes, drawings);
  const firstAnswer = performance.now(); // since the page was asked for
  batchExplorer(find("#batch"), drawings);
  await shapes.open("image");
  await drawingSheet(find("#draw"), shapes, drawings);
  const photos = await loadGallery("photos");
  const cifar10 = new Clip(runtime, "cifar10");
  await cifar10.open("text");
  await promptBox(find("#photos"), cifar10, photos);
  await temperatureSlider(find("#temperature"), cifar10, photos);
  find("#status").textContent = `The model runs. Its first answer came after ${(firstAnswer / 1000).toFixed(1)} seconds.`;
  document.documentElement.dataset.firstAnswer = firstAnswer; // in milliseconds
}

start().catch((error) => {
  find("#status").textContent = `The model does not start in this browser (${error.message}): try a newer one.`;
  throw error;
});
