"""The report's style sheet: system fonts, one accent an axis, and a print form that keeps figures whole."""

STYLE = """
:root { --ink: #1b2430; --muted: #5c6773; --rule: #dce2e7; --wash: #f5f7f8;
  --quality: #7b3f8c; --coverage: #2a788e; --speed: #b3541e; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 1148px; margin: 0 auto; padding: 44px 24px 64px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 6px; }
h2 { font-size: 21px; line-height: 1.25; letter-spacing: -0.01em; margin: 52px 0 4px; }
h3 { font-size: 15px; margin: 26px 0 6px; }
p { margin: 0 0 10px; max-width: 76ch; }
.sub, .lead { color: var(--muted); }
.sub { margin-bottom: 22px; max-width: none; }
.eyebrow { color: var(--coverage); font-size: 13px; font-weight: 600; text-transform: uppercase;
  letter-spacing: .08em; margin: 0; }
.verdict p { font-size: 18px; line-height: 1.45; margin-bottom: 8px; max-width: 92ch; text-wrap: pretty; }
.axes { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 16px; margin: 24px 0 0; }
.axes > div { border-top: 4px solid var(--axis); background: var(--wash); padding: 12px 16px 14px; }
.axes .name { color: var(--axis); font-size: 13px; font-weight: 600; text-transform: uppercase; letter-spacing: .06em; }
.axes .who { font-weight: 600; font-size: 18px; line-height: 1.3; margin: 2px 0; }
.axes .why { color: var(--muted); font-size: 14px; }
.quality { --axis: var(--quality); } .coverage { --axis: var(--coverage); } .speed { --axis: var(--speed); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.figures { width: 100%; margin-top: 10px; }
.figures th, .figures td { padding: 8px 12px; text-align: right; vertical-align: baseline; white-space: nowrap; }
.figures tbody th, .figures thead td { text-align: left; padding-left: 0; white-space: normal; }
.figures tbody th { font-weight: 500; min-width: 13em; }
.figures thead th { font-weight: 600; font-size: 14px; line-height: 1.25; vertical-align: top; white-space: normal; }
.figures thead small { display: block; color: var(--muted); font-weight: 400; font-size: 12px; min-height: 1.25em; }
.figures th.axis { color: var(--axis); text-align: left; font-size: 12px; text-transform: uppercase;
  letter-spacing: .06em;
  padding: 4px 6px; }
.figures th.axis span { display: block; border-bottom: 3px solid var(--axis); padding: 0 6px 3px; }
.figures thead span { white-space: nowrap; }
.figures tbody tr { border-top: 1px solid var(--rule); }
.figures tbody.yardsticks { border-top: 2px solid var(--ink); color: var(--muted); font-style: italic; }
.figures tbody:last-child { border-bottom: 1px solid var(--rule); }
.figures strong { font-weight: 750; }
.figures tbody.models strong { background: #e3f1ee; margin: 0 -5px; padding: 2px 5px; border-radius: 3px; }
sup { line-height: 0; font-size: 11px; margin-left: 1px; } a { color: inherit; }
.key { color: var(--muted); font-size: 14px; margin: 10px 0 0; max-width: none; }
figure { margin: 14px 0 0; }
figcaption { font-weight: 600; font-size: 15px; margin-bottom: 6px; }
figcaption small, .aside { color: var(--muted); font-weight: 400; font-size: 14px; }
img { display: block; max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
.chart { display: flex; gap: 36px; align-items: center; margin-top: 12px; }
.chart .plot { flex: none; width: 680px; height: 430px; }
.chart .aside p { margin-bottom: 10px; }
.ways { display: grid; grid-template-columns: repeat(var(--across), minmax(0, max-content)); gap: 10px 20px; }
.byclass { display: grid; grid-template-columns: auto minmax(0, max-content) auto; }
.byclass > div { display: flex; flex-direction: column; }
.byclass span { flex: 1; display: flex; align-items: center; justify-content: flex-end; font-size: 13px;
  font-variant-numeric: tabular-nums; line-height: 1; }
.byclass .class { padding-right: 5px; font-weight: 600; min-width: 14px; }
.byclass .share { color: var(--muted); min-width: 36px; } .byclass .share span { font-size: 11px; }
.times { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr); text-align: center; font-size: 12px;
  color: var(--muted); font-variant-numeric: tabular-nums; max-width: 100%; }
.facts { margin: 12px 0 0; }
.facts > div { display: grid; grid-template-columns: 10.5em 1fr; gap: 12px; padding: 5px 0;
  border-top: 1px solid var(--rule);
  font-size: 14px; }
.facts dt { color: var(--muted); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.details { width: 100%; font-size: 13px; margin-top: 22px; }
.details th, .details td { text-align: left; vertical-align: top; padding: 6px 12px 6px 0;
  border-top: 1px solid var(--rule);
  line-height: 1.4; }
.details thead th { color: var(--muted); font-weight: 600; border-top: 0; } .details thead td { border-top: 0; }
.details tbody th { font-weight: 600; }
.warnings { margin: 0; padding: 10px 14px 10px 30px; background: #fdf3e7; border-left: 4px solid #d98324;
  font-size: 14px; }
pre { margin: 0; padding: 12px 14px; background: var(--wash); overflow-x: auto;
  font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
pre.recipe { columns: 2; column-gap: 32px; }
footer { margin-top: 56px; padding-top: 10px; border-top: 1px solid var(--rule); color: var(--muted); font-size: 13px; }
@media (max-width: 1060px) {
  .chart { display: block; } .chart .plot { max-width: 100%; overflow-x: auto; }
  .ways { grid-template-columns: repeat(auto-fit, minmax(240px, max-content)); }
  pre.recipe { columns: 1; }
}
@page { size: auto; margin: 15mm 14mm; }
@media print {
  body { font-size: 10.5pt; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  h1 { font-size: 22pt; } h2 { font-size: 14pt; margin-top: 26pt; }
  h2, h3, figcaption, .lead { break-after: avoid; }
  .verdict p { font-size: 11.5pt; }
  .axes { grid-template-columns: repeat(3, 1fr); gap: 10px; } .axes .who { font-size: 11.5pt; }
  .axes .why { font-size: 9pt; }
  figure, .ways, .lead, .chart, .axes > div, .facts > div, tr, li { break-inside: avoid; }
  .scroll { overflow: visible; }
  table.figures { font-size: 8.8pt; } .figures th, .figures td { padding: 4px 6px; }
  .figures thead th { font-size: 8.4pt; } .figures thead small { font-size: 7.4pt; }
  .figures th.axis { padding: 3px 3px; }
  .figures th.axis span { padding: 0 3px 2px; }
  .figures tbody th { min-width: 9em; }
  .figures tbody.models strong { margin: 0; padding: 0; }
  .chart { display: block; } .chart .aside { margin-top: 8px; }
  .ways { grid-template-columns: repeat(var(--across), minmax(0, max-content)); gap: 8px 14px; }
  .byclass span { font-size: 7.5pt; } .byclass .share { min-width: 24pt; } .byclass .share span { font-size: 6.5pt; }
  .times { font-size: 7.5pt; }
  .details { font-size: 7.6pt; } .facts > div { font-size: 9pt; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 7.8pt; }
  pre.recipe { columns: 2; }
  .modebar-container { display: none; }
}
"""
