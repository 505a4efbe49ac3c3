// The browser's side of fer_nb.browser_camera.BrowserCamera, third part: what it saves on a click, the image as it is shown and a table of numbers.
// Rows are kept in this page alone, from the click that starts them to the click that saves or discards them.

function record(s) {
  if (s.record?.on) {
    s.record.on = false;
    return s.record.rows.length ? keep(s) : discard(s, "Nothing was recorded: there was no face.");
  }
  s.record = {on: true, rows: [], frame: 0, began: performance.now(), at: stamp(), why: ""};
  say(s, "");
  dressRecorder(s);
}

const stamp = () => new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-");

// One row for each face of an answer, in the columns of a table of a video.
function addRows(s, message, taken) {
  const {record} = s;
  if (!record?.on || taken < record.began) return;
  const [wide, high] = message.size, frame = record.frame++, time = +((taken - record.began)/1000).toFixed(6);
  for (const {id, box, score, label, confidence, p} of message.faces) {
    const [x, y, width, height] = box.map((v, i) => Math.round(v*(i % 2 ? high : wide)));
    const classes = Object.fromEntries(s.settings.classes.map((name, i) => [name, p[i]]));
    const settings = message.made === record.made ? "" : message.made;   // with the first row, and where they change
    record.made = message.made;
    const cells = {...classes, settings, frame, time, face: id, x, y, width, height, score, label, confidence};
    record.rows.push(s.settings.columns.map(name => cell(cells[name] ?? "")).join(","));
  }
  if (performance.now() - record.began > 1000*s.settings.longest) endRecording(s, `${minutes(s.settings.longest)} are over.`);
  else if (record.rows.length >= s.settings.most) endRecording(s, `${s.settings.most.toLocaleString("en")} rows are full.`);
}

const minutes = seconds => seconds < 120 ? `${seconds} seconds` : `${Math.round(seconds/60)} minutes`;

// A text is in one line and no formula for a spreadsheet (`fer_nb.core.table_cell`).
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = String(value).replace(/[\u0000-\u001f\u007f]/g, " "), safe = /^[ '\u00a0\u3000]*[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(text) ? `'${text}` : text;
  return /[",]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// It is over, and not by the click that saves it: so it is offered.
function endRecording(s, why) {
  if (!s.record?.on) return;
  Object.assign(s.record, {on: false, why});
  if (!s.record.rows.length) s.record = null;
  dressRecorder(s);
}

function keep(s) {
  const {rows, at} = s.record, name = `faces-${at}.csv`;
  download(new Blob([[s.settings.columns.map(cell).join(","), ...rows, ""].join("\r\n")], {type: "text/csv;charset=utf-8"}), name);
  discard(s, `The browser saves ${name} among its downloads: ${rows.length.toLocaleString("en")} rows.`);
}

function discard(s, text = "") {
  s.record = null;
  if (!s.lost) say(s, text);
  dressRecorder(s);
}

function download(blob, name) {
  const url = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function dressRecorder(s) {
  const {record} = s, on = Boolean(record?.on), kept = Boolean(record && !on), live = s.state === "on" || s.state === "paused";
  s.find(".fer-recorder").hidden = !live && !record;
  Object.assign(s.find("[data-do=record]"), {hidden: kept, textContent: on ? "Stop and save" : "Record to CSV"});
  for (const what of ["keep", "discard"]) s.find(`[data-do=${what}]`).hidden = !kept;
  s.root.dataset.recording = on ? "1" : kept ? "kept" : "";
  const mark = on ? "recording" : kept ? `The recording has ended. ${record.why}`.trim() : "";
  if (s.find(".fer-mark").textContent !== mark) s.find(".fer-mark").textContent = mark;
  const seconds = on ? Math.floor((performance.now() - record.began)/1000) : 0, clock = `${Math.floor(seconds/60)}:${String(seconds % 60).padStart(2, "0")}`;
  const rows = record ? `${record.rows.length.toLocaleString("en")} rows` : "";
  s.find(".fer-length").textContent = on ? `${clock} · ${rows}` : kept ? `${rows} are only in this page until you save them.` : "";
  s.find(".fer-what").hidden = Boolean(record);
}

// ---- the image as it is shown, with the list beside it where there is one, and what made it in its metadata

async function snapshot(s) {
  const source = s.state === "still" ? s.still : s.video, wide = source.videoWidth ?? source.width, high = source.videoHeight ?? source.height;
  const faces = s.listed && s.options.bars ? seenNow(s) : [], zoom = Math.max(1, Math.min(wide, high)/480);
  const [across, tall] = faces.length ? barsSize(faces[0], zoom) : [0, 0], deep = Math.max(1, Math.floor(high/(tall + 34*zoom))), columns = Math.ceil(faces.length/deep);
  const canvas = Object.assign(document.createElement("canvas"), {width: wide + columns*(across + 8*zoom) + (columns ? 8*zoom : 0), height: Math.max(high, faces.length ? tall + 34*zoom : 0)});
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#15171b";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (s.options.mirror && source === s.video) pen.setTransform(-1, 0, 0, 1, wide, 0);
  pen.drawImage(source, 0, 0, wide, high);
  pen.setTransform(1, 0, 0, 1, 0, 0);
  paint(s, pen, wide, high);
  faces.forEach((face, i) => {
    const left = wide + 8*zoom + Math.floor(i/deep)*(across + 8*zoom), top = (i % deep)*(tall + 34*zoom);
    pen.font = `600 ${14*zoom}px ${FONT}`;
    pen.fillStyle = "#fff";
    pen.fillText(`${face.id} ${wordOf(s, face)} ${percent(face.confidence)}`, left + 8*zoom, top + 16*zoom);
    paintBars(s, pen, face, [left, top + 28*zoom, across, tall], zoom);
  });
  const blob = await new Promise(done => canvas.toBlob(done, "image/png")), name = `expressions-${stamp()}.png`;
  download(new Blob([withText(new Uint8Array(await blob.arrayBuffer()), {Software: "fer_nb", Description: s.made ?? ""})], {type: "image/png"}), name);
  say(s, `The browser saves ${name} among its downloads.`);
}

// A PNG with texts in its metadata: chunks "tEXt" behind its first chunk, which has 25 bytes and follows 8 bytes.
function withText(png, texts) {
  const chunks = Object.entries(texts).map(([key, value]) => {
    const data = new TextEncoder().encode(`tEXt${key}\0${value}`.replace(/[^\0-\x7e]/g, "?")), chunk = new Uint8Array(data.length + 8), view = new DataView(chunk.buffer);
    view.setUint32(0, data.length - 4);
    chunk.set(data, 4);
    view.setUint32(data.length + 4, checksum(data));
    return chunk;
  });
  return new Blob([png.slice(0, 33), ...chunks, png.slice(33)]);
}

function checksum(bytes) {   // CRC-32
  let sum = -1;
  for (const byte of bytes) {
    sum ^= byte;
    for (let i = 0; i < 8; i++) sum = sum >>> 1 ^ (sum & 1 && 0xedb88320);
  }
  return ~sum >>> 0;
}
