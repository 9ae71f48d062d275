/* One box that ticks all boxes of a name. */
(function () {
    "use strict";

    document.addEventListener("DOMContentLoaded", function () {
        document.querySelectorAll("[data-ticks]").forEach(function (all) {
            all.addEventListener("change", function () {
                all.form.querySelectorAll("input[name=" + all.dataset.ticks + "]").forEach(function (box) {
                    box.checked = all.checked;
                });
            });
        });
    });
}());
