"""How the page looks, on a light and a dark screen and on paper; and what keys do in it."""

from __future__ import annotations

from orchestrator.core.charts import WARNING
from orchestrator.page.words import look_styles

STYLE = f"""
:root {{ --page:#ffffff; --ink:#1b1f24; --soft:#5a6470; --lane:#f0f1f3; --rule:#d4d8dd; --accent:#0072b2;
  --warn:{WARNING}; --warn-ink:#9a3f00; color-scheme: light dark }}
@media (prefers-color-scheme: dark) {{ :root {{ --page:#14171c; --ink:#e6e8eb; --soft:#a3adb8; --lane:#20252c;
  --rule:#39414b; --accent:#56b4e9; --warn-ink:#ff9d5c }} }}
* {{ box-sizing: border-box }}
body {{ margin: 0 auto; padding: 20px; max-width: 1280px; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif }}
h1 {{ font-size: 22px; margin: 0 }} h2 {{ font-size: 17px; margin: 28px 0 8px }}
p, .note {{ color: var(--soft); margin: 4px 0 }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px; margin: 16px 0 }}
.tile {{ border: 1px solid var(--rule); border-radius: 6px; padding: 10px 14px }}
.tile b {{ display: block; font-size: 21px; line-height: 1.25; overflow-wrap: anywhere }}
.tile span {{ color: var(--soft); font-size: 13px }}
.tile.warn b {{ color: var(--warn-ink) }}
svg text {{ font: 12px system-ui, sans-serif; fill: var(--ink) }}
svg.gantt, svg.curve {{ width: 100%; height: auto; display: block }}
svg .lane {{ fill: var(--lane) }} svg .tick {{ stroke: var(--rule) }}
svg .c {{ text-anchor: end; fill: var(--soft) }} svg .m {{ text-anchor: middle; fill: var(--soft) }}
svg .x {{ stroke: var(--ink); stroke-width: 2 }}
svg .v {{ fill: var(--accent); opacity: .45 }} svg .w {{ fill: var(--accent) }}
svg .u {{ fill: none; stroke: var(--accent); stroke-width: 2 }} svg .d {{ fill: var(--accent) }}
.sample {{ vertical-align: -1px; margin-right: 6px; border: 1px solid var(--rule) }}
.two {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 20px }}
.legend {{ display: flex; flex-wrap: wrap; gap: 6px; margin: 8px 0; padding: 0; list-style: none }}
.legend button {{ font: inherit; font-size: 13px; color: inherit; background: none; border: 1px solid var(--rule);
  border-radius: 4px; padding: 2px 8px; cursor: pointer }}
.legend button[aria-pressed=true] {{ border-color: var(--accent); outline: 2px solid var(--accent) }}
.scroll {{ overflow-x: auto }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }}
caption {{ text-align: left; color: var(--soft); padding: 2px 0 6px }}
th, td {{ text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--rule); vertical-align: top }}
td.n, td.t:first-child {{ white-space: nowrap }}
.bar {{ display: inline-block; height: 9px; background: var(--accent); margin-right: 6px; vertical-align: 0 }}
.bar.warn {{ background: var(--warn) }}
.dim {{ opacity: .12 }}
:focus-visible {{ outline: 3px solid var(--accent); outline-offset: 2px }}
.skip {{ position: absolute; left: -999px }} .skip:focus {{ left: 20px; top: 4px;
  background: var(--page); padding: 6px }}
@media print {{
  body {{ max-width: none; padding: 0; font-size: 11px }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact }}
  .legend button {{ border: none; padding: 0 6px 0 0 }} .keys, .skip {{ display: none }}
  .two {{ grid-template-columns: 1fr 1fr }} table {{ font-size: 9.5px }} th, td {{ padding-right: 6px }}
  section, svg {{ break-inside: avoid }} .long {{ break-inside: auto }} .scroll {{ overflow: visible }}
  tr {{ break-inside: avoid }}
}}
{look_styles()}
"""

SCRIPT = """
(function () {
  var buttons = Array.prototype.slice.call(document.querySelectorAll('.legend button'));
  function show(chosen) {
    buttons.forEach(function (b) { b.setAttribute('aria-pressed', String(b === chosen)); });
    var of = chosen ? chosen.getAttribute('data-of') : null;
    document.querySelectorAll('[data-g]').forEach(function (e) {
      e.classList.toggle('dim', of !== null && e.getAttribute('data-g') !== of);
    });
  }
  buttons.forEach(function (b, place) {
    b.addEventListener('click', function () { show(b.getAttribute('aria-pressed') === 'true' ? null : b); });
    b.addEventListener('keydown', function (event) {
      var step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) { return; }
      event.preventDefault();
      var next = buttons[(place + step + buttons.length) % buttons.length];
      next.focus();
      show(next);
    });
  });
  document.addEventListener('keydown', function (event) {
    if (event.ctrlKey || event.altKey || event.metaKey) { return; }
    if (event.key === 'Escape') { show(null); }
    if (event.key === 'g' && buttons.length) { buttons[0].focus(); }
    var section = { c: 'cores', w: 'guests', q: 'quotas', i: 'incidents' }[event.key];
    if (section) {
      var heading = document.querySelector('#' + section + ' h2');
      heading.focus();
      heading.scrollIntoView();
    }
  });
})();
"""
