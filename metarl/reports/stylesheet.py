"""The style of a report: light and dark, narrow and wide."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f8; --text: #1c1f22; --muted: #5a6168; --line: #d9dde1;
  --warn: #fff6e0; --warn-line: #d99a00; --link: #0a58a8;
  --agent-0: #0072b2; --agent-1: #d55e00; --agent-2: #009e73;
  --agent-3: #b8568f; --agent-4: #2a93cf; --agent-5: #b97f00;
  --ceiling: #1c1f22; --baseline: #5f666d; --floor: #8b9299;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1d2125; --text: #e6e8ea; --muted: #a3abb3; --line: #363c42;
    --warn: #2e2714; --warn-line: #c9951f; --link: #7db7f0;
    --agent-0: #4fa8e0; --agent-1: #ff8a3d; --agent-2: #2fc79a;
    --agent-3: #e39ac2; --agent-4: #8fd0f5; --agent-5: #f0b93a;
    --ceiling: #e6e8ea; --baseline: #a9b0b7; --floor: #7d858c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: anywhere;
}
main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
h1 { font-size: clamp(1.2rem, 5vw, 1.6rem); line-height: 1.25; margin: 1.5rem 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .75rem; }
p { margin: .5rem 0; max-width: 46rem; }
h1 + p, .note, figcaption, footer { color: var(--muted); font-size: .875rem; }
footer { padding-top: 2rem; padding-bottom: 2rem; }
.caveats {
  margin: 0; padding: .75rem 1rem .75rem 2rem; background: var(--warn);
  border-left: 4px solid var(--warn-line); border-radius: 4px;
}
.caveats li + li { margin-top: .4rem; }
figure { margin: 0; padding: 1rem; background: var(--card); border-radius: 8px; }
figcaption { margin-top: .5rem; }
.plots {
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
}
.plots svg { width: 100%; height: auto; display: block; }
.plots text { fill: var(--muted); font-size: 13px; }
.plots text.axis { fill: var(--text); }
.grid { stroke: var(--line); fill: none; }
.line { stroke: var(--c); stroke-width: 2; fill: none; stroke-linejoin: round; }
.ceiling .line, .baseline .line, .floor .line { stroke-width: 1.4; }
.ceiling .band, .baseline .band, .floor .band { opacity: .07; }
.bar { stroke: var(--c); stroke-width: 1.5; fill: none; }
.band { fill: var(--c); opacity: .16; }
.marker { fill: var(--c); }
.points circle { fill: var(--c); opacity: 0; }
.points circle:hover { opacity: .45; }
.agent-0 { --c: var(--agent-0); } .agent-1 { --c: var(--agent-1); }
.agent-2 { --c: var(--agent-2); } .agent-3 { --c: var(--agent-3); }
.agent-4 { --c: var(--agent-4); } .agent-5 { --c: var(--agent-5); }
.ceiling { --c: var(--ceiling); } .baseline { --c: var(--baseline); } .floor { --c: var(--floor); }
.legend {
  list-style: none; margin: 0 0 .75rem; padding: 0;
  display: flex; flex-wrap: wrap; gap: .15rem 1.25rem; font-size: .875rem;
}
.legend li { display: flex; align-items: center; gap: .5rem; min-width: 0; }
@media (min-width: 60rem) {
  .single { display: grid; grid-template-columns: minmax(0, 46rem) 1fr; gap: 0 2rem; }
  .single .plots text { font-size: 10.5px; }
  .single .legend { flex-direction: column; justify-content: center; gap: .5rem; order: 1; }
  .single figcaption, .single details { grid-column: 1 / -1; order: 2; }
}
@media (max-width: 34rem) {
  .plots text { font-size: 17px; }
  figure { padding: .75rem .5rem; }
}
.sample { flex: none; width: 34px; height: 16px; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td {
  padding: .3rem .75rem .3rem 0; text-align: right; vertical-align: top; overflow-wrap: normal;
  border-bottom: 1px solid var(--line);
}
td, thead th { white-space: nowrap; }
th { font-weight: 600; }
th:first-child, tbody th { text-align: left; min-width: 8rem; }
tbody th { font-weight: 400; position: sticky; left: 0; background: var(--page); }
figure tbody th { background: var(--card); }
caption { text-align: left; color: var(--muted); }
details { margin-top: .75rem; }
summary { cursor: pointer; color: var(--link); font-size: .875rem; }
.films {
  display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr));
}
.films img { display: block; width: 100%; max-width: 340px; height: auto; border-radius: 4px; }
"""
