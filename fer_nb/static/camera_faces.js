// The browser's side of fer_nb.browser_camera.BrowserCamera, second part: faces drawn over the picture, in a list beside it, and in time.
// Boxes and bars glide to where they should be by now, so they move as smoothly as the image.
// A box that moves is moved on for as long as its answer was under way; small movements are left alone, for they are noise.

const CALM = .15, REACH = 250;   // widths of the box in a second that count as noise; milliseconds that are looked ahead
const MANY = 3;                  // faces from which on bars stand in a list beside the picture
const NARROW = 480;              // pixels of the picture below which they always do
const PAST = 30000;              // milliseconds that the timeline shows

const isStale = s => s.state === "on" && performance.now() - s.newest > FRESH;
const seenNow = s => [...s.faces.values()].filter(face => face.there).sort((a, b) => a.id - b.id);
const percent = p => `${Math.round(100*p)}%`;
const bestOf = p => p.indexOf(Math.max(...p));

// "happy", or "happy?" where the kernel is not sure.
const wordOf = (s, {label, p}) => label === "uncertain" ? `${s.settings.classes[bestOf(p)]}?` : label;
const colorOf = (s, face) => s.settings.colors[face.label === "uncertain" ? s.settings.classes[bestOf(face.p)] : face.label] ?? "#b0b0b0";

function merge(s, faces, taken) {
  for (const face of s.faces.values()) face.there = false;
  for (const {id, box, label, confidence, p, baseline} of faces) {
    const face = s.faces.get(id) ?? {id, box: [...box], shown: p.map(() => 0), alpha: 0, speed: [0, 0, 0, 0]}, span = (taken - face.taken)/1000;
    if (span > .01) face.speed = face.speed.map((v, i) => i > 1 || span > 1 ? 0 : v + ((box[i] - face.target[i])/span - v)*Math.min(1, span/.12));
    s.faces.set(id, Object.assign(face, {there: true, label, confidence, target: box, p, baseline, taken}));
  }
}

function settle(face, share, ahead) {
  const move = face.speed.map(v => Math.sign(v)*Math.max(0, Math.abs(v) - CALM*face.target[2])*ahead/1000);
  face.box = face.box.map((v, i) => v + (face.target[i] + move[i] - v)*share);
  face.shown = face.shown.map((v, i) => v + (face.p[i] - v)*share);
  face.alpha += ((face.there ? 1 : 0) - face.alpha)*share;
}

function draw(s) {
  const {overlay} = s, now = performance.now(), ratio = window.devicePixelRatio || 1;
  const wide = overlay.clientWidth, high = overlay.clientHeight, step = Math.min(100, now - s.drawn);
  if (overlay.width !== Math.round(wide*ratio) || overlay.height !== Math.round(high*ratio)) { overlay.width = Math.round(wide*ratio); overlay.height = Math.round(high*ratio); }
  s.drawn = now;
  const pen = overlay.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, high);
  s.root.dataset.stale = isStale(s) ? "1" : "";
  if (s.state === "off" || s.state === "asking") return;
  if (isStale(s)) for (const face of s.faces.values()) face.there = false;   // nothing old stays over a picture that moves
  for (const face of s.faces.values())
    if (s.state === "on") settle(face, 1 - Math.exp(-step/(face.there ? 40 : 120)), Math.min(REACH, now - face.taken)); else settle(face, 1, 0);
  for (const [id, face] of s.faces) if (!face.there && face.alpha < .03) s.faces.delete(id);
  list(s, wide);
  paint(s, pen, wide, high);
}

const round = (pen, x, y, w, h, r) => { pen.beginPath(); pen.roundRect ? pen.roundRect(x, y, w, h, r) : pen.rect(x, y, w, h); };

function paint(s, pen, wide, high) {
  const faces = [...s.faces.values()].sort((a, b) => a.box[2] - b.box[2]), zoom = Math.max(1, Math.min(1.3, Math.min(wide, high)/420));
  const boxes = faces.map(({box: [x, y, w, h]}) => [s.options.mirror && s.state !== "still" ? wide*(1 - x - w) : x*wide, y*high, w*wide, h*high]);
  const fading = (i, paintPart) => { pen.globalAlpha = Math.max(0, Math.min(1, faces[i].alpha)); paintPart(); };
  const labels = [];
  faces.forEach((face, i) => {
    const whole = `${face.id} ${wordOf(s, face)} ${percent(face.confidence)}`, texts = s.listed ? [whole, String(face.id)] : [whole];
    face.plate = placeLabel(pen, texts, boxes[i], {boxes, labels, size: [wide, high], zoom, gap: 4*zoom, was: face.plate?.at});
    labels.push(face.plate.spot);
  });
  faces.forEach((face, i) => fading(i, () => paintFace(s, pen, face, boxes[i], zoom)));
  faces.forEach((face, i) => fading(i, () => paintLabel(pen, face.plate, colorOf(s, face), zoom, 6*zoom)));
  const taken = [...boxes, ...labels];
  if (s.options.bars && !s.listed) faces.forEach((face, i) => {
    if (boxes[i][2] > 28*zoom) fading(i, () => taken.push(paintBars(s, pen, face, place(face, boxes[i], taken, [wide, high], barsSize(face, zoom), zoom), zoom)));
  });
  pen.globalAlpha = 1;
}

function paintFace(s, pen, face, [x, y, w, h], zoom) {
  const unsure = face.label === "uncertain", color = colorOf(s, face);
  pen.setLineDash(unsure ? [6*zoom, 5*zoom] : []);
  pen.lineJoin = "round";
  for (const [width, style] of [[4.5*zoom, "rgba(0,0,0,.4)"], [2.5*zoom, color]]) {
    pen.lineWidth = width;
    pen.strokeStyle = style;
    round(pen, x, y, w, h, 7*zoom);
    pen.stroke();
  }
  pen.setLineDash([]);
}

// The place beside a face where its bars hide least of faces and of other bars; the one where they were is kept unless another is clearly better.
function place(face, [x, y, w, h], taken, [wide, high], [across, tall], zoom) {
  const middle = x + (w - across)/2, sides = [[x + w + 8*zoom, y], [x - 8*zoom - across, y], [middle, y + h + 8*zoom], [middle, y - 34*zoom - tall]];
  const spots = sides.map(([left, top]) => [Math.max(0, Math.min(wide - across, left)), Math.max(0, Math.min(high - tall, top)), across, tall]);
  const costs = spots.map((spot, i) => taken.reduce((sum, o) => sum + common(spot, o), 0)/(across*tall) + .03*i - (i === face.side ? .15 : 0));
  face.side = costs.indexOf(Math.min(...costs));
  return spots[face.side];
}

const barsSize = (face, zoom) => [190*zoom, (face.p.length*15 + 10)*zoom];

// All probabilities on a dark plate, whose place is given back.
function paintBars(s, pen, face, spot, zoom) {
  const [left, top, across, tall] = spot, line = 15*zoom, best = bestOf(face.p);
  pen.fillStyle = "rgba(18,20,24,.72)";
  round(pen, left, top, across, tall, 8*zoom);
  pen.fill();
  pen.textBaseline = "middle";
  face.shown.forEach((p, i) => {
    const middle = top + 5*zoom + (i + .5)*line, name = s.settings.classes[i], start = left + 68*zoom, room = across - 118*zoom;
    pen.font = `${i === best ? 600 : 400} ${11.5*zoom}px ${FONT}`;
    pen.fillStyle = i === best ? "#fff" : "rgba(255,255,255,.85)";
    pen.fillText(name, left + 8*zoom, middle, 58*zoom);
    pen.textAlign = "right";
    pen.fillText(percent(face.p[i]), left + across - 8*zoom, middle);
    pen.textAlign = "left";
    pen.fillStyle = "rgba(255,255,255,.16)";
    round(pen, start, middle - 4*zoom, room, 8*zoom, 3*zoom);
    pen.fill();
    pen.fillStyle = s.settings.colors[name];
    round(pen, start, middle - 4*zoom, Math.max(zoom, room*p), 8*zoom, 3*zoom);
    pen.fill();
  });
  return spot;
}

// ---- the list beside the picture: from three faces on, and where the picture is small

function list(s, wide) {
  const now = performance.now(), place = s.find(".fer-list"), faces = seenNow(s);
  if (faces.length >= MANY || faces.length && wide < NARROW) s.listed = now;
  if (s.listed && (s.state !== "on" || now - s.listed > 2000) && s.listed !== now) s.listed = 0;   // it does not come and go with one frame
  if (isStale(s)) s.listed = 0;
  place.hidden = !s.options.bars || !s.listed && !(isStale(s) && !place.hidden);   // while it waits, the room is kept
  if (place.hidden || isStale(s) || s.state === "on" && now - s.drew < 100) return;
  s.drew = now;
  const rows = new Map([...place.children].map(row => [+row.dataset.face, row]));
  faces.forEach((face, i) => {
    const row = rows.get(face.id) ?? makeRow(s, face);
    rows.delete(face.id);
    fillRow(s, row, face);
    if (place.children[i] !== row) place.insertBefore(row, place.children[i] ?? null);
  });
  for (const row of rows.values()) row.remove();
  place.tabIndex = place.scrollHeight > place.clientHeight + 1 ? 0 : -1;   // so that keys can scroll it
}

function makeRow(s, face) {
  const row = document.createElement("li");
  row.className = "fer-face";
  row.dataset.face = face.id;
  row.innerHTML = `<p class="fer-verdict"><span class="fer-plate"></span><span class="fer-number"></span></p><div class="fer-bars" role="img"></div>`;
  row.querySelector(".fer-bars").append(...s.settings.classes.flatMap(name => {
    const [label, track, value] = ["fer-class", "fer-track", "fer-value"].map(kind => Object.assign(document.createElement("span"), {className: kind}));
    label.textContent = label.title = name;
    track.style.setProperty("--fer-bar", s.settings.colors[name]);
    track.append(document.createElement("i"));
    return [label, track, value];
  }));
  return row;
}

function fillRow(s, row, face) {
  const color = colorOf(s, face), best = bestOf(face.p), unsure = face.label === "uncertain", bars = row.querySelector(".fer-bars");
  row.classList.toggle("fer-unsure", unsure);
  row.style.setProperty("--fer-color", color);
  row.style.setProperty("--fer-on", ink(color));
  row.querySelector(".fer-plate").textContent = `${face.id} ${wordOf(s, face)} ${percent(face.confidence)}`;
  row.querySelector(".fer-number").textContent = [unsure && "not sure", face.baseline != null && `baseline: ${face.baseline} s`].filter(Boolean).join(" · ");
  bars.ariaLabel = s.settings.classes.map((name, i) => `${name} ${percent(face.p[i])}`).join(", ");
  face.p.forEach((p, i) => {
    const [label, track, value] = [...bars.children].slice(3*i, 3*i + 3);
    for (const part of [label, value]) part.classList.toggle("fer-best", i === best);
    track.firstChild.style.width = `${(100*p).toFixed(1)}%`;
    value.textContent = percent(p);
  });
}

// What a screen reader finds.
function tell(s, faces) {
  s.find(".fer-said").replaceChildren(...faces.map(face => Object.assign(document.createElement("li"),
    {textContent: `face ${face.id}: ${wordOf(s, face)} ${percent(face.confidence)}${face.label === "uncertain" ? ", not sure" : ""}`})));
}

// ---- the last half minute of each face

function remember(s, faces, time) {
  for (const {id, label, confidence, p} of faces) {
    if (!s.history.has(id)) s.history.set(id, []);
    const points = s.history.get(id);
    if (points.length && time - points.at(-1).time < 90) continue;
    points.push({time, best: bestOf(p), confidence, unsure: label === "uncertain"});
    while (points[0].time < time - PAST - 1000) points.shift();
  }
}

function drawHistory(s) {
  const now = performance.now(), place = s.find(".fer-rows"), rows = new Map([...place.children].map(row => [+row.dataset.face, row]));
  for (const [id, points] of s.history) if (now - points.at(-1).time > PAST) s.history.delete(id);
  const shown = [...s.history].filter(([, points]) => points.length > 4).sort((a, b) => a[0] - b[0]).slice(-12);
  s.find(".fer-history").hidden = !shown.length;
  shown.forEach(([id, points], i) => {
    const row = rows.get(id) ?? Object.assign(document.createElement("div"), {className: "fer-row"});
    if (!rows.delete(id)) { row.dataset.face = id; row.innerHTML = `<span class="fer-number" aria-hidden="true">${+id}</span><canvas role="img"></canvas>`; }
    if (place.children[i] !== row) place.insertBefore(row, place.children[i] ?? null);
    drawStrip(s, row.querySelector("canvas"), points, now, id);
  });
  for (const row of rows.values()) row.remove();
}

// Spans of one expression, from the oldest on: {best, unsure, from, to, confidence}.
function spans(points) {
  const found = [];
  points.forEach(({time, best, confidence, unsure}, i) => {
    const next = points[i + 1]?.time ?? time + 100, to = Math.min(next, time + 600), last = found.at(-1);
    if (last && last.best === best && last.unsure === unsure && time - last.to < 50) { last.to = to; last.least = Math.min(last.least, confidence); }
    else found.push({best, unsure, from: time, to, least: confidence});
  });
  return found;
}

// Color says which expression, height how sure; words are written where there is room.
function drawStrip(s, canvas, points, now, id) {
  const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight, at = time => wide*(1 - (now - time)/PAST);
  const {classes, colors} = s.settings, pen = canvas.getContext("2d"), runs = spans(points);
  Object.assign(canvas, {width: Math.round(wide*ratio), height: Math.round(high*ratio)});
  pen.scale(ratio, ratio);
  points.forEach(({time, best, confidence, unsure}, i) => {
    const end = Math.min(points[i + 1]?.time ?? time + 100, time + 600);
    pen.globalAlpha = unsure ? .5 : 1;
    pen.fillStyle = colors[classes[best]];
    const left = Math.floor(at(time)*ratio)/ratio, right = Math.ceil(at(end)*ratio)/ratio;   // whole pixels: no seams
    pen.clearRect(left, 0, right - left, high);
    pen.fillRect(left, high*(1 - confidence), right - left, high*confidence);
  });
  pen.globalAlpha = 1;
  pen.font = `600 11px ${FONT}`;
  pen.textBaseline = "bottom";
  for (const {best, unsure, from, to, least} of runs) {
    const left = Math.max(0, at(from)) + 4, word = classes[best];
    if (unsure || at(to) - left < pen.measureText(word).width + 4 || least*high < 12) continue;
    pen.fillStyle = ink(colors[word]);
    pen.fillText(word, left, high - 1);
  }
  const total = name => runs.reduce((sum, run) => sum + (classes[run.best] === name ? run.to - Math.max(run.from, now - PAST) : 0), 0)/1000;
  const parts = classes.map(name => [name, Math.round(total(name))]).filter(o => o[1] > 0).sort((a, b) => b[1] - a[1]);
  canvas.ariaLabel = canvas.title = `face ${id}, the last 30 seconds: ${parts.map(([name, n]) => `${name} ${n} s`).join(", ")}`;
}
