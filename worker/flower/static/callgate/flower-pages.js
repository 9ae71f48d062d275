/* Flower's table of tasks: rows of calls lead to the calls, and have their states. */
(function ($) {
    "use strict";

    var badges = {SUCCEEDED: "text-bg-success", DEAD: "text-bg-danger", REJECTED: "text-bg-warning", RUNNING: "task-state-started"};

    $(document).on("draw.dt", function (event) {
        if (event.target.id !== "tasks-table") { return; }
        $(event.target).DataTable().rows({page: "current"}).every(function () {
            var data = this.data(), row = this.node();
            if (!data || !data.call || !row) { return; }
            row.querySelectorAll('a[href*="/task/"]').forEach(function (link) {
                link.setAttribute("href", data.call);
                link.setAttribute("title", "The call of task " + data.uuid);
            });
            row.querySelectorAll(".badge").forEach(function (badge) {
                badge.className = "badge " + (badges[data.state] || "text-bg-secondary");
                badge.textContent = "CALL " + data.state.replace(/^CALL /, "");
            });
        });
    });
}(window.jQuery));
