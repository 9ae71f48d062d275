/* The chart of a search: bars on top of each other. Dragging over it narrows the search to that time. */
(function () {
    "use strict";

    var COLORS = {
        succeeded: "--cg-green", dead: "--cg-red", failed: "--cg-red", rejected: "--cg-orange", unknown: "--cg-violet",
        waiting: "--cg-yellow", running: "--cg-blue", queued: "--cg-grey", dispatched: "--cg-blue", answered: "--cg-teal"
    };

    function color(name) {
        var style = getComputedStyle(document.documentElement);
        return style.getPropertyValue(COLORS[name] || "--cg-grey").trim() || "gray";
    }

    /* Each series stands on those before it. */
    function stacked(counts, names) {
        var below = [];
        return names.map(function (name) {
            below = counts[name].map(function (n, i) { return n + (below[i] || 0); });
            return below;
        });
    }

    function clock(zone, hasDays) {
        var said = new Intl.DateTimeFormat("en-GB", hasDays ? { timeZone: zone, day: "numeric", month: "short" } :
            { timeZone: zone, hour: "2-digit", minute: "2-digit" });
        return function (at) { return at === null ? "" : said.format(new Date(1000 * at)); };
    }

    function iso(seconds) { return new Date(1000 * seconds).toISOString().replace(/\.\d+Z$/, "Z"); }

    function narrow(box, since, until) {
        var words = (box.dataset.base + " since:" + iso(since) + " until:" + iso(until)).trim();
        window.location.assign(box.dataset.calls + "?q=" + encodeURIComponent(words));
    }

    function draw(box) {
        var told = JSON.parse(box.dataset.chart), names = Object.keys(told.counts);
        var sums = stacked(told.counts, names);
        var style = getComputedStyle(document.body), bars = window.uPlot.paths.bars({ size: [0.9, 40], align: 1 });
        var said = clock(box.dataset.zone, told.until - told.since > 172800);
        var axis = { stroke: style.color, grid: { stroke: "rgba(128, 128, 128, 0.2)" }, ticks: { show: false } };
        /* The highest bar is drawn first, the lower ones over it. */
        var order = names.map(function (_, i) { return names.length - 1 - i; });
        var series = [{ label: "From", value: function (u, at) { return at === null ? "—" : said(at); } }].concat(order.map(function (i) {
            return { label: names[i], fill: color(names[i]), stroke: color(names[i]), width: 0, paths: bars,
                points: { show: false }, value: function (u, v, s, at) { return at === null ? "—" : told.counts[names[i]][at]; } };
        }));
        box.replaceChildren();
        return new window.uPlot({
            width: box.clientWidth, height: 160, series: series,
            tzDate: function (at) { return window.uPlot.tzDate(new Date(1000 * at), box.dataset.zone); },
            scales: { x: { range: function () { return [told.since, Math.max(told.until, told.since + told.step_s)]; } },
                y: { range: function (u, low, high) { return [0, Math.max(1, high)]; } } },
            axes: [Object.assign({ values: function (u, all) { return all.map(said); } }, axis), Object.assign({ size: 56, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6] }, axis)],
            cursor: { drag: { x: true, y: false, setScale: false } },
            hooks: { setSelect: [function (u) {
                if (u.select.width < 4) { return; }
                narrow(box, u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
            }] }
        }, [told.times].concat(order.map(function (i) { return sums[i]; })), box);
    }

    function start() {
        var box = document.querySelector(".cg-chart"), plot;
        if (!box || box.dataset.drawn) { return; }
        box.dataset.drawn = "true";
        plot = draw(box);
        window.addEventListener("resize", function () { plot.setSize({ width: box.clientWidth, height: 160 }); });
        new MutationObserver(function () { plot.destroy(); plot = draw(box); })
            .observe(document.documentElement, { attributes: true, attributeFilter: ["data-bs-theme"] });
    }

    document.addEventListener("DOMContentLoaded", function () {
        document.body.addEventListener("htmx:afterSwap", start);
        start();
    });
}());
