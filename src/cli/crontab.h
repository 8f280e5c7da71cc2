/* The crontabs of Vixie's cron and its heirs, read as schedules and written back.
 *
 * What it is: lines of `minute hour day month weekday [user] command`, @daily and the like, and
 * assignments, which hold for the lines below them: CRON_TZ is the time zone, SHELL what runs the
 * command, HOME also the working directory, MAILTO a label; the others are the job's environment.
 * An unescaped % ends the command, what follows is its standard input. What Chronos cannot have
 * (@reboot) is left out with a note. A schedule read from a crontab does as cron does: runs beside
 * each other, nothing caught up, no time limit, one attempt.
 * What it is not: /etc/cron.d as a whole, nor anacron.
 * Names: a line `# chronos: NAME` names the entry below it (several lines of one name are one
 * schedule); else the name is made of the command and the user, so that it stays when the time is
 * changed or lines move. Thread: any. */
#pragma once

#include "cli/schedule_yaml.h"

#define CRONTAB_BYTES_MAX ((size_t) 16 * 1024 * 1024)
#define CRONTAB_USER_LABEL "crontab.user"
#define CRONTAB_MAILTO_LABEL "crontab.mailto"

struct crontab_options {
    const char *name;      /* of the file, for messages */
    const char *time_zone; /* until a CRON_TZ */
    const char *prefix;    /* of made names; may be "" */
    bool user_column;      /* the form of /etc/crontab */
};

/* @notes  gets a line for each thing that is not as in cron
 * 0; 1 = refused, *reterr names the line; -ENOMEM, ERR_LIMIT. */
int crontab_read(const char *text, size_t len, const struct crontab_options *o, struct arena *arena,
                 struct schedule_list *ret, struct buf *notes, struct errtext *reterr) _must_check_;

/* In another order: see there. What a crontab cannot say is left out, with a comment that says why.
 * *ret_left_out counts the schedules concerned. 0, -ENOMEM, ERR_LIMIT. */
int crontab_write(const struct schedule_list *l, bool user_column, struct arena *arena,
                  struct buf *out, size_t *ret_left_out) _must_check_;

/* ---- shared by the reader and the writer ------------------------------------------------------
 */

/* A command with its standard input as a script of sh: `exec <<'CRON_INPUT'` with the input, then
 * the command. */
#define CRONTAB_HERE "exec <<'CRON_INPUT"
/* The script's last line when another shell runs the command: its arguments are shell, command. */
#define CRONTAB_OTHER_SHELL "exec \"$0\" -c \"$1\""
