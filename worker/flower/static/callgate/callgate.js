/* Live pages, the time zone. No framework; htmx does the requests. */
(function () {
    "use strict";

    var paused = false, failed = false, pause, status, dot;

    function live() { return document.getElementById("live"); }

    function isBusy(region) {
        var at = document.activeElement;
        return region.contains(at) && at.matches("input, select, textarea, button");
    }

    function tell() {
        var region = live();
        if (!region || !status) { return; }
        var away = document.hidden || !document.hasFocus();
        status.textContent = (failed ? "No answer; as of " : paused || away ? "Paused at " : "Live, as of ") +
            region.dataset.at;
        dot.classList.toggle("status-dot-live", !paused && !away && !failed);
    }

    function tick() {
        var region = live();
        if (region && !paused && !document.hidden && document.hasFocus() && !isBusy(region)) {
            window.htmx.trigger(region, "refresh");
        }
        tell();
        window.setTimeout(tick, 1000 * (region ? Number(region.dataset.liveS) || 5 : 5));
    }

    function startLive() {
        pause = document.getElementById("cg-live-pause");
        status = document.getElementById("cg-live-status");
        dot = document.getElementById("cg-live-dot");
        if (!pause) { return; }
        if (!live()) { pause.parentElement.hidden = true; return; }
        pause.addEventListener("click", function () {
            paused = !paused;
            pause.setAttribute("aria-pressed", String(paused));
            pause.textContent = paused ? "Go on" : "Pause";
            tell();
        });
        document.body.addEventListener("htmx:afterSwap", function () { failed = false; tell(); });
        document.body.addEventListener("htmx:responseError", function () { failed = true; tell(); });
        document.body.addEventListener("htmx:sendError", function () { failed = true; tell(); });
        ["focus", "blur"].forEach(function (name) { window.addEventListener(name, tell); });
        document.addEventListener("visibilitychange", tell);
        tell();
        window.setTimeout(tick, 1000 * (Number(live().dataset.liveS) || 5));
    }

    function startZone() {
        var select = document.getElementById("cg-zone");
        if (!select) { return; }
        var here = Intl.DateTimeFormat().resolvedOptions().timeZone;
        var names = ["UTC", here].concat(Intl.supportedValuesOf("timeZone"));
        names.filter(function (name, at) { return name && names.indexOf(name) === at; }).forEach(function (name) {
            if (name !== select.dataset.zone) { select.add(new Option(name, name)); }
        });
        select.addEventListener("change", function () {
            document.cookie = "callgate_zone=" + select.value + "; path=/; max-age=31536000; samesite=lax";
            window.location.reload();
        });
    }

    document.addEventListener("DOMContentLoaded", function () { startLive(); startZone(); });
}());
