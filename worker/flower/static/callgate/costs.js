/* The chart of costs: stacked bars by step of time. The data is JSON from the page's own address. */
(function () {
    "use strict";

    var COLOURS = ["#2f6fdf", "#d9752b", "#2e9e5b", "#a33fb5", "#c9a100", "#1699b8", "#d6336c", "#6b7f2a"];
    var OTHER = "#8a8f98";

    function colour(line, at) { return line.name === null ? OTHER : COLOURS[at % COLOURS.length]; }

    function label(line) { return line.name === null ? "others" : line.name === "" ? "(none)" : line.name; }

    function css(name) { return getComputedStyle(document.body).getPropertyValue(name).trim(); }

    function dollars(value) {
        if (value === null || value === undefined) { return "—"; }
        var digits = value === 0 || Math.abs(value) >= 0.01 ? 2 : 6;
        return "$" + value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    }

    /* Each line is drawn as high as itself and all lines after it, the highest first. */
    function stacked(lines) {
        return lines.map(function (_, at) {
            return lines[0].usd.map(function (_, step) {
                return lines.slice(at).reduce(function (sum, line) { return sum + line.usd[step]; }, 0);
            });
        });
    }

    /* Hours as 14:00, days as 2026-11-30, months as 2026-11; in the time zone of the steps. */
    function times(data) {
        var parts = { timeZone: data.zone, year: "numeric", month: "2-digit", day: "2-digit" };
        var day = new Intl.DateTimeFormat("en-CA", parts);
        var hour = new Intl.DateTimeFormat("en-GB", { timeZone: data.zone, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
        return function (s, isLong) {
            var at = new Date(s * 1000), date = day.format(at);
            if (data.step === "hour") { return isLong ? date + " " + hour.format(at) : hour.format(at); }
            return data.step === "month" ? date.slice(0, 7) : isLong ? date : date.slice(5);
        };
    }

    /* Where the axis may have a mark: at beginnings of steps, as many as there is room for. */
    function marks(data, width) {
        var every = Math.max(1, Math.ceil(data.starts.length / Math.max(2, Math.floor(width / 70))));
        return data.starts.filter(function (_, at) { return at % every === 0; });
    }

    function draw(target, data) {
        var time = times(data), lines = data.lines, bars = window.uPlot.paths.bars({ size: [0.8, 60], gap: 1 });
        var grid = { stroke: css("--bs-border-color"), width: 1 }, ink = css("--bs-secondary-color");
        var axis = { stroke: ink, grid: grid, ticks: grid };
        target.textContent = "";
        var chart = new window.uPlot({
            width: target.clientWidth, height: 260,
            cursor: { drag: { x: false, y: false }, points: { show: false } },
            scales: { x: { range: function (_, low, high) { return [low - step(data) / 2, high + step(data) / 2]; } } },
            axes: [Object.assign({
                splits: function (chart) { return marks(data, chart.width); },
                values: function (_, at) { return at.map(function (s) { return time(s, false); }); },
            }, axis), Object.assign({ size: 72, values: function (_, at) { return at.map(dollars); } }, axis)],
            series: [{ label: data.zone, value: function (_, s) { return s ? time(s, true) : "—"; } }].concat(lines.map(function (line, at) {
                return {
                    label: label(line), stroke: colour(line, at), fill: colour(line, at), width: 0, paths: bars, points: { show: false },
                    value: function (_, value, series, index) {
                        return index === null || index === undefined ? "—" : dollars(lines[series - 1].usd[index]);
                    },
                };
            })),
        }, [data.starts].concat(stacked(lines)), target);
        new ResizeObserver(function () { chart.setSize({ width: target.clientWidth, height: 260 }); }).observe(target);
    }

    function step(data) { return data.step === "hour" ? 3600 : data.step === "day" ? 86400 : 30 * 86400; }

    function start() {
        var target = document.getElementById("cg-chart");
        if (!target) { return; }
        fetch(target.dataset.from, { credentials: "same-origin" }).then(function (answer) {
            if (!answer.ok) { throw new Error(String(answer.status)); }
            return answer.json();
        }).then(function (data) {
            if (data.lines.length) { draw(target, data); } else { target.textContent = "Nothing to draw."; }
            target.dataset.drawn = "true";
        }).catch(function () {
            target.textContent = "The chart could not be read. The table is complete.";
            target.dataset.drawn = "false";
        });
    }

    document.addEventListener("DOMContentLoaded", start);
}());
