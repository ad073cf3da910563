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

function renderMap({ model, el }) {
  const [layers, heads, T, S] = model.get("shape"); // (layers, heads, T, S)
  const weights = readWeights(model);
  const peak = weights.reduce((a, b) => Math.max(a, b), 0) || 1;
  const rows = model.get("tokens").map(visible);
  const columns = model.get("columns").map(visible);
  const colours = model.get("colours");
  const on = listeners(model);
  let hovered = null;
  let waiting = 0;

  const root = make("div", "course-map");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Attention map");
  const controls = make("div", "course-controls");
  const canvas = keepKeys(make("canvas", "", { tabIndex: 0 }));
  canvas.setAttribute("role", "application"); // a screen reader then passes the arrow keys on
  canvas.setAttribute("aria-roledescription", "heat map");
  const readout = make("div", "course-readout");
  readout.setAttribute("role", "status");
  readout.setAttribute("aria-live", "polite");
  const scroller = make("div", "course-scroll");
  scroller.append(canvas);
  root.append(controls, scroller, readout);
  el.append(root);

  const pen = canvas.getContext("2d");
  const at = (i, j) => weights[((model.get("layer") * heads + model.get("head")) * T + i) * S + j];
  const rowSum = (i) => columns.reduce((sum, _, j) => sum + at(i, j), 0);
  const inks = colours.map(inkOn);
  const shade = (value) => Math.round((value / peak) * (colours.length - 1));
  const selected = () => model.get("selected");

  function slider(name, count) {
    if (count === 1) return () => {};
    const label = make("label", "", { textContent: name });
    const input = keepKeys(make("input", "", { type: "range", min: 0, max: count - 1, step: 1 }));
    const output = make("span"); // for the eye; a screen reader hears aria-valuetext
    output.setAttribute("aria-hidden", "true");
    label.append(input, output);
    controls.append(label);
    on.dom(input, "input", () => {
      model.set(name, Number(input.value));
      model.save_changes();
    });
    return () => {
      const value = model.get(name);
      input.value = value;
      input.setAttribute("aria-label", name);
      input.setAttribute("aria-valuetext", `${name} ${value} of 0 to ${count - 1}`);
      output.textContent = `${value} / ${count - 1}`;
    };
  }
  const syncs = [slider("layer", layers), slider("head", heads)];
  const legend = make("span", "course-legend");
  const ramp = make("i");
  ramp.style.background = `linear-gradient(90deg, ${colours.join(",")})`;
  legend.append("0", ramp, peak.toPrecision(2));
  legend.title = `colours run from 0 to the tensor's largest weight, ${exact(peak)}`;
  controls.append(legend);

  // ---- layout, in CSS pixels
  const cell = Math.max(11, Math.min(46, Math.floor(600 / Math.max(T, S))));
  const font = (size, weight = "") => `${weight} ${size}px system-ui, sans-serif`.trim();
  const nameSize = Math.min(13, cell - 1);
  pen.font = font(nameSize);
  function shorten(name) {
    let text = name;
    while (pen.measureText(text).width > LONGEST_NAME) text = text.replace(/…$/, "").slice(0, -1) + "…";
    return text;
  }
  const rowNames = rows.map(shorten);
  const columnNames = columns.map(shorten);
  const widest = (names) => Math.max(...names.map((name) => pen.measureText(name).width));
  const upright = widest(columnNames) <= cell - 6;
  const tilt = upright ? 0 : cell < 22 ? Math.PI / 2 : Math.PI / 4;
  const left = EDGE + widest(rowNames) + 10;
  const top = EDGE + widest(columnNames) * Math.sin(tilt) + nameSize * Math.cos(tilt) + 8;
  const right = Math.max(58, upright ? 0 : widest(columnNames) * Math.cos(tilt) - cell / 2 + EDGE);
  const width = Math.ceil(left + S * cell + right);
  const height = Math.ceil(top + T * cell + EDGE);

  function resize() {
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    pen.setTransform(scale, 0, 0, scale, 0, 0);
  }

  function drawCells() {
    const written = cell >= 36;
    pen.textAlign = "center";
    pen.font = font(11);
    for (let i = 0; i < T; i += 1) {
      for (let j = 0; j < S; j += 1) {
        const value = at(i, j);
        pen.fillStyle = colours[shade(value)];
        pen.fillRect(left + j * cell, top + i * cell, cell - 1, cell - 1);
        if (!written) continue;
        pen.fillStyle = inks[shade(value)];
        pen.fillText(value === 0 ? "0" : value.toFixed(2), left + (j + 0.5) * cell - 0.5, top + (i + 0.5) * cell);
      }
    }
  }

  function drawNames(ink, muted, chosen) {
    pen.textAlign = "right";
    for (let i = 0; i < T; i += 1) {
      const mine = chosen && chosen[0] === i;
      pen.fillStyle = ink;
      pen.font = font(nameSize, mine ? "bold" : "");
      pen.fillText(rowNames[i], left - 8, top + (i + 0.5) * cell);
    }
    for (let j = 0; j < S; j += 1) {
      pen.save();
      pen.fillStyle = ink;
      pen.font = font(nameSize, chosen && chosen[1] === j ? "bold" : "");
      pen.translate(left + (j + 0.5) * cell, top - 8);
      pen.rotate(-tilt);
      pen.textAlign = upright ? "center" : "left";
      pen.fillText(columnNames[j], 0, upright ? -nameSize / 2 + 3 : 0);
      pen.restore();
    }
    pen.textAlign = "left";
    pen.fillStyle = muted;
    pen.font = font(Math.min(11, cell));
    for (let i = 0; i < T; i += 1) pen.fillText(`Σ ${rowSum(i).toFixed(3)}`, left + S * cell + 7, top + (i + 0.5) * cell);
  }

  function drawFrame(place, colour) {
    if (!place) return;
    const [x, y] = [left + place[1] * cell - 0.5, top + place[0] * cell - 0.5];
    for (const [ink, thick] of [["#fff", 5], [colour, 2.5]]) {
      pen.strokeStyle = ink; // a pale rim below, so that the frame shows on every colour of the map
      pen.lineWidth = thick;
      pen.strokeRect(x, y, cell, cell);
    }
  }

  function draw() {
    waiting = 0;
    const style = getComputedStyle(root);
    resize();
    pen.clearRect(0, 0, width, height);
    pen.textBaseline = "middle";
    const place = hovered || selected();
    drawCells();
    drawNames(style.color, style.getPropertyValue("--course-muted"), place);
    drawFrame(selected(), style.getPropertyValue("--course-accent"));
    if (hovered) drawFrame(hovered, "#000");
    root.dataset.shown = `${model.get("layer")}/${model.get("head")}`;
    root.dataset.sums = rows.map((_, i) => rowSum(i).toFixed(3)).join(" ");
  }
  const redraw = () => {
    if (!waiting) waiting = requestAnimationFrame(draw); // theme colours are known only once attached
  };

  function tell() {
    const place = hovered || selected();
    readout.replaceChildren();
    if (!place) {
      readout.textContent = "Point at a cell, or focus the map and use the arrow keys.";
      return;
    }
    const [i, j] = place;
    const value = at(i, j);
    const number = make("b", "course-value", { textContent: brief(value), title: exact(value) });
    number.dataset.value = exact(value);
    const precise = make("span", "course-exact", { textContent: `exactly ${exact(value)}` });
    readout.append(`query ${i} “${rows[i]}” → key ${j} “${columns[j]}”: `, number, " ", precise);
  }

  function update() {
    syncs.forEach((sync) => sync());
    const where = `layer ${model.get("layer")}, head ${model.get("head")}`;
    canvas.setAttribute("aria-label", `Attention, ${where}: ${T} queries in rows, ${S} keys in columns. Arrow keys move.`);
    tell();
    redraw();
  }

  function select(place) {
    model.set("selected", place);
    model.save_changes();
  }
  function under(event) {
    const box = canvas.getBoundingClientRect();
    const i = Math.floor((event.clientY - box.top - top) / cell);
    const j = Math.floor((event.clientX - box.left - left) / cell);
    return i >= 0 && j >= 0 && i < T && j < S ? [i, j] : null;
  }
  function hover(place) {
    if (String(place) === String(hovered)) return;
    hovered = place;
    tell();
    redraw();
  }
  function onKey(event) {
    const [i, j] = selected() || [0, 0];
    const step = selected() ? KEYS[event.key] : KEYS[event.key] && [0, 0]; // the first press enters at the corner
    if (step) select([clamp(i + step[0], T), clamp(j + step[1], S)]);
    else if (event.key === "Home") select([i, 0]);
    else if (event.key === "End") select([i, S - 1]);
    else if (event.key === "Escape") select(null);
    else return;
    hovered = null;
    event.preventDefault();
    event.stopPropagation();
  }

  on.dom(canvas, "mousemove", (event) => hover(under(event)));
  on.dom(canvas, "mouseleave", () => hover(null));
  on.dom(canvas, "click", (event) => under(event) && select(under(event)));
  on.dom(canvas, "keydown", onKey);
  on.dom(window, "resize", redraw); // also told when the page moves to a denser screen
  ["layer", "head", "selected"].forEach((name) => on.model(`change:${name}`, update));
  const theme = new MutationObserver(redraw); // JupyterLab, Colab and VS Code all mark the theme here
  [document.documentElement, document.body].forEach((node) => theme.observe(node, { attributes: true }));
  on.later(() => theme.disconnect());
  on.later(() => cancelAnimationFrame(waiting));
  update();
  return on.stop;
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

const VIEWS = { map: renderMap, text: renderText };
export default { render: (context) => VIEWS[context.model.get("kind")](context) };
