// The front ends of course_utils.widgets. One module for both views: `kind` says which. Nothing is fetched.

const EDGE = 12; // px around the drawing
const LONGEST_NAME = 104; // px; a longer token is shortened
const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function make(tag, className, properties = {}) {
  const node = Object.assign(document.createElement(tag), properties);
  if (className) node.className = className;
  return node;
}

// JupyterLab takes the arrow keys and Enter for itself unless this stands on the focused element.
function keepKeys(node) {
  node.dataset.lmSuppressShortcuts = "true";
  return node;
}

const clamp = (value, count) => Math.max(0, Math.min(count - 1, value));
const font = (size, bold = false) => `${bold ? "bold " : ""}${size}px system-ui, sans-serif`;
const visible = (token) => token.replace(/\n/g, "↵").replace(/\s/g, "␣") || "∅";

// The shortest decimal that is this float32 and no other: what NumPy prints for it.
function exact(value) {
  for (let digits = 1; digits < 9; digits += 1) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}

function brief(value) {
  return value !== 0 && value < 5e-5 ? value.toExponential(1) : value.toFixed(4);
}

// Black or white, whichever stands out more on "#rrggbb" (WCAG 2.2, relative luminance).
function inkOn(ground) {
  const linear = [1, 3, 5].map((at) => {
    const c = parseInt(ground.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 ? "#000" : "#fff";
}

/** Listens to `model` and the page, and hands back one function that takes every listener away again. */
function listeners(model) {
  const undo = [];
  return {
    model(name, call) {
      model.on(name, call);
      undo.push(() => model.off(name, call));
    },
    dom(target, name, call) {
      target.addEventListener(name, call);
      undo.push(() => target.removeEventListener(name, call));
    },
    later: (call) => undo.push(call),
    stop: () => undo.splice(0).forEach((call) => call()),
  };
}

function readWeights(model) {
  const view = model.get("buffer");
  const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength); // float32 wants alignment
  return new Float32Array(bytes);
}

/** One view of an AttentionMap: numbers from `model`, a canvas and its controls inside `el`. */
class MapView {
  constructor({ model, el }) {
    this.model = model;
    [this.layers, this.heads, this.T, this.S] = model.get("shape"); // (layers, heads, T, S)
    this.weights = readWeights(model);
    this.peak = this.weights.reduce((a, b) => Math.max(a, b), 0) || 1;
    this.rows = model.get("tokens").map(visible);
    this.columns = model.get("columns").map(visible);
    this.colours = model.get("colours");
    this.inks = this.colours.map(inkOn);
    this.on = listeners(model);
    this.hovered = null; // [query, key] under the pointer; the model holds the selected one
    this.frame = 0;
    this.build(el);
    this.measure();
    this.listen();
    this.update();
  }

  // ---- the numbers

  get selected() {
    return this.model.get("selected");
  }
  get place() {
    return this.hovered || this.selected;
  }
  at(i, j) {
    const map = this.model.get("layer") * this.heads + this.model.get("head");
    return this.weights[(map * this.T + i) * this.S + j];
  }
  rowSum(i) {
    return this.columns.reduce((sum, _, j) => sum + this.at(i, j), 0).toFixed(3);
  }

  // ---- the page

  build(el) {
    const root = make("div", "course-map");
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "Attention map");
    const canvas = keepKeys(make("canvas", "", { tabIndex: 0 }));
    canvas.setAttribute("role", "application"); // a screen reader then passes the arrow keys on
    canvas.setAttribute("aria-roledescription", "heat map");
    const readout = make("div", "course-readout");
    readout.setAttribute("role", "status");
    readout.setAttribute("aria-live", "polite");
    const controls = make("div", "course-controls");
    const scroller = make("div", "course-scroll");
    scroller.append(canvas);
    root.append(controls, scroller, readout);
    el.append(root);
    Object.assign(this, { root, controls, canvas, readout, pen: canvas.getContext("2d") });
    this.syncs = [this.slider("layer", this.layers), this.slider("head", this.heads)];
    controls.append(this.legend());
  }

  /** A slider for the trait `name`, where there is a choice; the function that brings it up to date. */
  slider(name, count) {
    if (count === 1) return () => {};
    const label = make("label", "", { textContent: name });
    const input = keepKeys(make("input", "", { type: "range", min: 0, max: count - 1, step: 1 }));
    const output = make("span"); // for the eye; a screen reader hears aria-valuetext
    input.setAttribute("aria-label", name);
    output.setAttribute("aria-hidden", "true");
    label.append(input, output);
    this.controls.append(label);
    this.on.dom(input, "input", () => this.tellModel(name, Number(input.value)));
    return () => {
      const value = this.model.get(name);
      input.value = value;
      input.setAttribute("aria-valuetext", `${name} ${value} of 0 to ${count - 1}`);
      output.textContent = `${value} / ${count - 1}`;
    };
  }

  legend() {
    const legend = make("span", "course-legend");
    const ramp = make("i");
    ramp.style.background = `linear-gradient(90deg, ${this.colours.join(",")})`;
    legend.append("0", ramp, this.peak.toPrecision(2));
    legend.title = `colours run from 0 to the tensor's largest weight, ${exact(this.peak)}`;
    return legend;
  }

  /** The layout, in CSS pixels: as large as fits, and still usable at 64 tokens. */
  measure() {
    const cell = Math.max(11, Math.min(46, Math.floor(600 / Math.max(this.T, this.S))));
    const nameSize = Math.min(13, cell - 1);
    this.pen.font = font(nameSize);
    const width = (text) => this.pen.measureText(text).width;
    const shorten = (name) => {
      let text = name;
      while (width(text) > LONGEST_NAME) text = `${text.replace(/…$/, "").slice(0, -1)}…`;
      return text;
    };
    const rowNames = this.rows.map(shorten);
    const columnNames = this.columns.map(shorten);
    const widest = Math.max(...columnNames.map(width));
    const upright = widest <= cell - 6;
    const tilt = upright ? 0 : cell < 22 ? Math.PI / 2 : Math.PI / 4;
    const left = EDGE + Math.max(...rowNames.map(width)) + 10;
    const top = EDGE + widest * Math.sin(tilt) + nameSize * Math.cos(tilt) + 8;
    const right = Math.max(58, upright ? 0 : widest * Math.cos(tilt) - cell / 2 + EDGE);
    Object.assign(this, { cell, nameSize, rowNames, columnNames, upright, tilt, left, top });
    this.width = Math.ceil(left + this.S * cell + right);
    this.height = Math.ceil(top + this.T * cell + EDGE);
  }

  // ---- drawing

  redraw() {
    this.frame ||= requestAnimationFrame(() => this.draw()); // theme colours are known only once attached
  }

  draw() {
    this.frame = 0;
    const style = getComputedStyle(this.root);
    this.fitScreen();
    this.pen.clearRect(0, 0, this.width, this.height);
    this.pen.textBaseline = "middle";
    this.drawCells();
    this.drawNames(style.color);
    this.drawSums(style.getPropertyValue("--course-muted"));
    this.drawFrame(this.selected, style.getPropertyValue("--course-accent"));
    this.drawFrame(this.hovered, "#000");
    this.root.dataset.shown = `${this.model.get("layer")}/${this.model.get("head")}`;
  }

  fitScreen() {
    const { canvas, width, height } = this;
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    this.pen.setTransform(scale, 0, 0, scale, 0, 0);
  }

  drawCells() {
    const { pen, cell, left, top } = this;
    pen.textAlign = "center";
    pen.font = font(11);
    for (let i = 0; i < this.T; i += 1) {
      for (let j = 0; j < this.S; j += 1) {
        const value = this.at(i, j);
        const shade = Math.round((value / this.peak) * (this.colours.length - 1));
        pen.fillStyle = this.colours[shade];
        pen.fillRect(left + j * cell, top + i * cell, cell - 1, cell - 1);
        if (cell < 36) continue; // no room to write
        pen.fillStyle = this.inks[shade];
        pen.fillText(value === 0 ? "0" : value.toFixed(2), left + (j + 0.5) * cell - 0.5, top + (i + 0.5) * cell);
      }
    }
  }

  drawNames(ink) {
    const { pen, cell, left, top, nameSize, upright } = this;
    const [row, column] = this.place || [];
    pen.fillStyle = ink;
    pen.textAlign = "right";
    this.rowNames.forEach((name, i) => {
      pen.font = font(nameSize, i === row);
      pen.fillText(name, left - 8, top + (i + 0.5) * cell);
    });
    pen.textAlign = upright ? "center" : "left";
    this.columnNames.forEach((name, j) => {
      pen.save();
      pen.font = font(nameSize, j === column);
      pen.translate(left + (j + 0.5) * cell, top - 8);
      pen.rotate(-this.tilt);
      pen.fillText(name, 0, upright ? -nameSize / 2 + 3 : 0);
      pen.restore();
    });
  }

  drawSums(ink) {
    const { pen, cell } = this;
    const sums = this.rows.map((_, i) => this.rowSum(i));
    pen.fillStyle = ink;
    pen.textAlign = "left";
    pen.font = font(Math.min(11, cell));
    sums.forEach((sum, i) => pen.fillText(`Σ ${sum}`, this.left + this.S * cell + 7, this.top + (i + 0.5) * cell));
    this.root.dataset.sums = sums.join(" ");
  }

  drawFrame(place, colour) {
    if (!place) return;
    const { pen, cell } = this;
    const [x, y] = [this.left + place[1] * cell - 0.5, this.top + place[0] * cell - 0.5];
    for (const [ink, thick] of [["#fff", 5], [colour, 2.5]]) {
      pen.strokeStyle = ink; // a pale rim below, so that the frame shows on every colour of the map
      pen.lineWidth = thick;
      pen.strokeRect(x, y, cell, cell);
    }
  }

  // ---- telling and listening

  tell() {
    if (!this.place) {
      this.readout.textContent = "Point at a cell, or focus the map and use the arrow keys.";
      return;
    }
    const [i, j] = this.place;
    const value = this.at(i, j);
    const number = make("b", "", { textContent: brief(value), title: exact(value) });
    const precise = make("span", "course-exact", { textContent: `exactly ${exact(value)}` });
    const where = `query ${i} “${this.rows[i]}” → key ${j} “${this.columns[j]}”: `;
    this.readout.replaceChildren(where, number, " ", precise, ` · row sum ${this.rowSum(i)}`);
  }

  update() {
    this.syncs.forEach((sync) => sync());
    const where = `layer ${this.model.get("layer")}, head ${this.model.get("head")}`;
    const size = `${this.T} queries in rows, ${this.S} keys in columns`;
    this.canvas.setAttribute("aria-label", `Attention, ${where}: ${size}. Arrow keys move.`);
    this.tell();
    this.redraw();
  }

  tellModel(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const i = Math.floor((event.clientY - box.top - this.top) / this.cell);
    const j = Math.floor((event.clientX - box.left - this.left) / this.cell);
    return i >= 0 && j >= 0 && i < this.T && j < this.S ? [i, j] : null;
  }

  hover(place) {
    if (String(place) === String(this.hovered)) return;
    this.hovered = place;
    this.tell();
    this.redraw();
  }

  onKey(event) {
    const [i, j] = this.selected || [0, 0];
    // the first press enters at the corner
    const step = this.selected ? KEYS[event.key] : KEYS[event.key] && [0, 0];
    let place;
    if (step) place = [clamp(i + step[0], this.T), clamp(j + step[1], this.S)];
    else if (event.key === "Home") place = [i, 0];
    else if (event.key === "End") place = [i, this.S - 1];
    else if (event.key === "Escape") place = null;
    else return;
    this.hovered = null;
    this.tellModel("selected", place);
    event.preventDefault();
    event.stopPropagation();
  }

  listen() {
    const { on, canvas } = this;
    const redraw = () => this.redraw();
    on.dom(canvas, "mousemove", (event) => this.hover(this.under(event)));
    on.dom(canvas, "mouseleave", () => this.hover(null));
    on.dom(canvas, "click", (event) => this.under(event) && this.tellModel("selected", this.under(event)));
    on.dom(canvas, "keydown", (event) => this.onKey(event));
    on.dom(window, "resize", redraw); // also told when the page moves to a denser screen
    ["layer", "head", "selected"].forEach((name) => on.model(`change:${name}`, () => this.update()));
    const theme = new MutationObserver(redraw); // JupyterLab, Colab and VS Code all mark the theme here
    [document.documentElement, document.body].forEach((node) => theme.observe(node, { attributes: true }));
    on.later(() => theme.disconnect());
    on.later(() => cancelAnimationFrame(this.frame));
  }
}

let boxes = 0;

function renderText({ model, el }) {
  const on = listeners(model);
  const id = `course-text-${(boxes += 1)}-${Math.random().toString(36).slice(2)}`;
  const root = make("div", "course-text");
  const line = make("div", "course-line"); // no <form>: a sandboxed output frame may not submit one
  const label = make("label", "", { htmlFor: id, textContent: model.get("label") });
  const input = keepKeys(make("input", "", { id, type: "text", autocomplete: "off", spellcheck: false }));
  const button = keepKeys(make("button", "", { type: "button", textContent: model.get("button") }));
  const error = make("div", "course-error", { id: `${id}-error` });
  const result = make("div", "course-result");
  let sent = null;
  input.placeholder = model.get("placeholder");
  input.setAttribute("aria-describedby", error.id);
  error.setAttribute("role", "alert");
  result.setAttribute("aria-live", "polite");
  line.append(label, input, button);
  root.append(line, error, result);
  el.append(root);

  function busy(yes) {
    root.setAttribute("aria-busy", String(yes)); // not `disabled`: that would take the focus away
  }
  function showResult() {
    error.textContent = model.get("error");
    error.hidden = !model.get("error");
    input.setAttribute("aria-invalid", String(Boolean(model.get("error"))));
    result.innerHTML = model.get("html"); // the reader's own kernel made and escaped it
    result.hidden = !model.get("html");
    busy(false);
  }
  function submit() {
    busy(true);
    sent = input.value;
    model.send({ text: sent });
  }
  on.dom(button, "click", submit);
  on.dom(input, "keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && !event.isComposing) submit(); // Enter also ends an input method's word
  });
  on.model("change:value", () => {
    if (model.get("value") !== sent) input.value = model.get("value"); // else the reader may be typing on
  });
  on.model("change:runs", showResult);
  input.value = model.get("value");
  showResult();
  return on.stop;
}

const VIEWS = { map: (context) => new MapView(context).on.stop, text: renderText };
export default { render: (context) => VIEWS[context.model.get("kind")](context) };
