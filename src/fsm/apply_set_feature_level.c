/* SetFeatureLevel.
 *
 * From this entry on, commands of the level may be in the log. A member whose program does not know
 * it must not go on as if it did, so that one stops here, loudly, with nothing applied; and it is
 * decided again, on what all know, that no present member is such a one. */
#include "fsm/fsm_internal.h"

#include <inttypes.h>

int apply_set_feature_level(struct fsm *f, struct apply *a, const void *item, struct slice raw,
                            struct fsm_result *res) {
    const struct item_set_feature_level *s = item;

    (void) raw;
    ASSERT(f->feature_level > 0);
    if (s->level <= f->feature_level) {
        refuse(res, "level: must be higher than the present one");
        return 0;
    }
    for (const struct fsm_node *n = f->nodes_first; n; n = n->next) {
        if (n->removed || n->feature_max >= s->level)
            continue;
        refuse(res, n->bound ? "level: a member's program does not know it"
                             : "level: a member has not yet said what it knows");
        return 0;
    }
    if (s->level > f->options.feature_level_max) {
        errtext_set(a->err,
                    "entry %" PRIu64 " raises the feature level to %" PRIu32
                    ": this program knows levels up to %" PRIu32,
                    a->index, s->level, f->options.feature_level_max);
        return ERR_VERSION;
    }
    f->feature_level = s->level;
    f->output.nodes_changed = true;
    return 0;
}
