"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const read = (id) => { const node = document.getElementById(id); return node ? JSON.parse(node.textContent) : null; };
const percent = (p) => (100 * p).toFixed(1) + " %";

// ------------------------------------------------------------------------------------------------------------- tables
function sortTable(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const up = header.getAttribute("aria-sort") !== "ascending";
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");  // empty cells stay last, either way
    const numbers = !isNaN(x) && !isNaN(y);
    return (up ? 1 : -1) * (numbers ? x - y : x.localeCompare(y, undefined, { numeric: true }));
  };
  body.append(...[...body.rows].sort(order));
  for (const other of all("th[aria-sort]", table)) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
}
for (const button of all("th button")) button.addEventListener("click", () => sortTable(button.closest("th")));

// --------------------------------------------------------------------------------------------------- tabs, copy, zoom
for (const list of all("[role=tablist]")) {
  const tabs = all("[role=tab]", list);
  const choose = (chosen, focus) => {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      const panel = document.getElementById(tab.getAttribute("aria-controls"));
      if (panel && !tab.hasAttribute("data-shared")) panel.hidden = !on;
    }
    if (focus) chosen.focus();
    list.dispatchEvent(new CustomEvent("choose", { detail: tabs.indexOf(chosen) }));
  };
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => choose(tab, false));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose(tabs[(i + step + tabs.length) % tabs.length], true);
    });
  });
  if (tabs.length) choose(tabs[0], false);
}
for (const button of all(".copy")) button.addEventListener("click", async () => {
  const text = button.parentElement.querySelector("code").textContent;
  try { await navigator.clipboard.writeText(text); button.textContent = "copied"; } catch { button.textContent = "select it"; }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
});
const zoom = document.querySelector("dialog.zoom");
for (const button of all(".picture button")) button.addEventListener("click", () => {
  const small = button.querySelector("img"), large = zoom.querySelector("img");
  large.src = small.currentSrc;
  large.alt = small.alt;
  zoom.showModal();
});
zoom.addEventListener("click", (event) => { if (event.target === zoom || event.target.tagName === "IMG") zoom.close(); });

// where one is on the page
const links = new Map(all("nav.contents a").map((link) => [link.hash.slice(1), link]));
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) {
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-10% 0px -80% 0px" });
for (const section of all("main > section[id]")) watch.observe(section);

// ----------------------------------------------------------------------------------- Figure 2: a patch's own projection
// A map's picture is 3 x 3 projections, a gap, and the 3 x 3 patches that they come from.
function featureMaps(root) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const [projection, patch] = all(".loupe canvas", root), text = root.querySelector(".loupe output");
  const { tile, gap } = data, left = 0, right = 3 * (tile + gap) + data.middle;
  const show = (mosaic, cell) => {
    for (const other of all(".mosaic.active", root)) if (other !== mosaic) other.classList.remove("active");
    mosaic.classList.add("active");
    mosaic.dataset.cell = cell;
    const picture = mosaic.querySelector("img"), x = (cell % 3) * (tile + gap), y = Math.floor(cell / 3) * (tile + gap);
    [[projection, left], [patch, right]].forEach(([canvas, start], i) => {
      canvas.width = canvas.height = tile;
      canvas.getContext("2d").drawImage(picture, start + x, y, tile, tile, 0, 0, tile, tile);
      const mark = all(".mark", mosaic)[i].style;
      mark.left = 100 * (start + x) / data.width + "%";
      mark.top = 100 * y / data.height + "%";
      mark.width = 100 * tile / data.width + "%";
      mark.height = 100 * tile / data.height + "%";
    });
    const map = data.maps[mosaic.dataset.map];
    text.textContent = `Layer ${data.layer}, map ${map.number}: image ${cell + 1} of the nine that excite it most, `
      + `activation ${map.activations[cell].toPrecision(3)}` + (map.names ? `, ${map.names[cell]}` : "");
  };
  for (const mosaic of all(".mosaic", root)) {
    const at = (event) => {
      const box = mosaic.getBoundingClientRect();
      let x = (event.clientX - box.left) / box.width * data.width;
      const y = (event.clientY - box.top) / box.height * data.height;
      if (x >= right - data.middle / 2) x -= right;
      const place = (value) => Math.max(0, Math.min(2, Math.floor(value / (tile + gap))));
      show(mosaic, 3 * place(y) + place(x));
    };
    mosaic.addEventListener("pointermove", at);
    mosaic.addEventListener("pointerdown", at);
    mosaic.addEventListener("focus", () => show(mosaic, +(mosaic.dataset.cell || 0)));
    mosaic.addEventListener("keydown", (event) => {
      const [dx, dy] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key] || [];
      if (dx === undefined) return;
      event.preventDefault();
      const cell = +(mosaic.dataset.cell || 0), x = (cell % 3 + dx + 3) % 3, y = (Math.floor(cell / 3) + dy + 3) % 3;
      show(mosaic, 3 * y + x);
    });
  }
  const first = root.querySelector(".mosaic"), picture = first?.querySelector("img");
  if (picture) picture.decode().then(() => show(first, 0)).catch(() => {});
}
all(".features").forEach(featureMaps);

// ---------------------------------------------------------------------------------------------------- Figure 4: epochs
const evolution = document.querySelector(".evolution");
if (evolution) {
  const data = read("evolution-data"), slider = evolution.querySelector("input"), text = evolution.querySelector("output");
  const show = (i) => {
    text.textContent = `epoch ${data.epochs[i]}`;
    slider.setAttribute("aria-valuetext", text.textContent);
    for (const frame of all(".frame", evolution)) {
      frame.style.backgroundPosition = `${100 * i / Math.max(1, data.epochs.length - 1)}% ${frame.dataset.row}%`;
      frame.classList.toggle("jumped", frame.dataset.jumps[i] === "1");
    }
  };
  slider.addEventListener("input", () => show(+slider.value));
  show(+slider.value);
  const play = evolution.querySelector("button");
  let timer = null;
  play.addEventListener("click", () => {
    if (timer) { clearInterval(timer); timer = null; play.textContent = "play"; return; }
    play.textContent = "pause";
    timer = setInterval(() => {
      slider.value = (+slider.value + 1) % data.epochs.length;
      show(+slider.value);
    }, 700);
  });
}

// ---------------------------------------------------------------------------------------- Figure 7: the moving square
const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
function viridis(t) {
  const x = Math.max(0, Math.min(1, t)) * (VIRIDIS.length - 1), i = Math.min(VIRIDIS.length - 2, Math.floor(x));
  return VIRIDIS[i].map((c, k) => Math.round(c + (x - i) * (VIRIDIS[i + 1][k] - c)));
}
const classColour = (i) => `hsl(${(i * 137.508) % 360} 55% ${[46, 62, 34][i % 3]}%)`;  // golden angle: neighbours differ

function explorer(root) {
  const data = read("explorer-data"), [P, Q] = [data.ys.length, data.xs.length];
  const canvas = root.querySelector("canvas.image"), heats = all("canvas.heat", root);
  const field = (name) => root.querySelector(`[data-read=${name}]`);
  const gradient = `linear-gradient(to right, ${VIRIDIS.map((c) => `rgb(${c})`).join(",")})`;
  for (const bar of all(".bar", root)) bar.style.background = gradient;
  const fill = new Image(), thumbs = all("[role=tab] img", root);
  let chosen = 0, place = [0, 0];

  const nearest = (starts, centre) => {
    let best = 0;
    starts.forEach((start, i) => { if (Math.abs(start + data.square / 2 - centre) < Math.abs(starts[best] + data.square / 2 - centre)) best = i; });
    return best;
  };
  const reading = (name, text, value, clean) => {
    const node = field(name), small = document.createElement("small");
    small.textContent = clean ? `(${clean} without the square)` : "";
    node.replaceChildren(`${text} `, small);
    node.dataset.value = value;
  };
  const drawHeats = () => {
    const image = data.images[chosen];
    const kinds = [image.probability.map((v) => viridis(v)), null, null];
    const low = Math.min(...image.activity), high = Math.max(...image.activity);
    kinds[1] = image.activity.map((v) => viridis(high > low ? (v - low) / (high - low) : 0));
    field("low").textContent = low.toPrecision(3);
    field("high").textContent = high.toPrecision(3);
    heats.forEach((heat, k) => {
      const scale = Math.max(1, Math.floor(230 / Math.max(P, Q)));
      heat.width = Q * scale;
      heat.height = P * scale;
      const pen = heat.getContext("2d");
      for (let i = 0; i < P * Q; i++) {
        pen.fillStyle = k === 2 ? classColour(image.top_class[i]) : `rgb(${kinds[k][i]})`;
        pen.fillRect((i % Q) * scale, Math.floor(i / Q) * scale, scale, scale);
      }
      const [p, q] = place;
      pen.lineWidth = 3; pen.strokeStyle = "#000"; pen.strokeRect(q * scale, p * scale, scale, scale);
      pen.lineWidth = 1.5; pen.strokeStyle = "#fff"; pen.strokeRect(q * scale, p * scale, scale, scale);
    });
  };
  const show = (p, q) => {
    place = [Math.max(0, Math.min(P - 1, p)), Math.max(0, Math.min(Q - 1, q))];
    [p, q] = place;
    const image = data.images[chosen], i = p * Q + q, [y, x] = [data.ys[p], data.xs[q]];
    canvas.width = canvas.height = data.size;
    const pen = canvas.getContext("2d");
    pen.drawImage(thumbs[chosen], 0, 0, data.size, data.size);
    pen.drawImage(fill, x, y, data.square, data.square, x, y, data.square, data.square);
    field("place").textContent = `left ${x}, top ${y} px`;
    reading("probability", percent(image.probability[i]), image.probability[i], percent(image.clean_probability));
    const top = image.top_class[i];
    reading("top", `${data.class_names[top]}, ${percent(image.top_probability[i])}`, data.class_names[top]);
    reading("activity", image.activity[i].toPrecision(3), image.activity[i], image.clean_activity.toPrecision(3));
    drawHeats();
  };
  const choose = (i) => {
    chosen = i;
    const image = data.images[i];
    field("class").textContent = data.class_names[image.label];
    field("map").textContent = `layer ${data.layer}, map ${image.map}: total activation`;
    const found = [...new Set(image.top_class)];
    const count = (c) => image.top_class.filter((other) => other === c).length;
    found.sort((a, b) => count(b) - count(a));
    root.querySelector(".legend").replaceChildren(...found.slice(0, 12).map((c) => {
      const item = document.createElement("li"), dot = document.createElement("i");
      dot.style.background = classColour(c);
      item.append(dot, `${data.class_names[c]} ${Math.round(100 * count(c) / (P * Q))} %`);
      return item;
    }));
    let lowest = 0;
    image.probability.forEach((v, k) => { if (v < image.probability[lowest]) lowest = k; });
    show(Math.floor(lowest / Q), lowest % Q);
  };
  const inside = (node, event) => {
    const box = node.getBoundingClientRect();
    return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
  };
  const follow = (node, move) => { for (const type of ["pointermove", "pointerdown"]) node.addEventListener(type, (event) => move(...inside(node, event))); };
  follow(canvas, (y, x) => show(nearest(data.ys, y * data.size), nearest(data.xs, x * data.size)));
  for (const heat of heats) follow(heat, (y, x) => show(Math.floor(y * P), Math.floor(x * Q)));
  canvas.addEventListener("keydown", (event) => {
    const [dp, dq] = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key] || [];
    if (dp === undefined) return;
    event.preventDefault();
    show(place[0] + dp, place[1] + dq);
  });
  root.querySelector("[role=tablist]").addEventListener("choose", (event) => choose(event.detail));
  fill.src = data.fill;
  Promise.all([fill, ...thumbs].map((image) => image.decode())).then(() => choose(0));
}
all(".explorer-root").forEach(explorer);
document.documentElement.dataset.ready = "true";
