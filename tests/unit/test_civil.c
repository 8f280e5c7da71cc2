#include "sched/civil.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

/* Goal: dates and day numbers are each other's inverse, and what libc says.
 * Method: every day from 1600 to 2400 counted one by one, gmtime_r beside it. */
static void test_every_day(void **state) {
    int64_t expected = civil_days(1600, 1, 1);
    uint8_t weekday = 6; /* 1600-01-01 was a Saturday */

    (void) state;
    for (int32_t year = 1600; year < 2400; year++)
        for (uint8_t month = 1; month <= 12; month++)
            for (uint8_t day = 1; day <= civil_month_days(year, month); day++) {
                int64_t days = civil_days(year, month, day);
                struct civil c = civil_of(days * CIVIL_SECONDS_PER_DAY + 86399);
                time_t t = (time_t) (days * CIVIL_SECONDS_PER_DAY);
                struct tm tm;

                assert_int_equal(days, expected);
                assert_int_equal(c.year, year);
                assert_int_equal(c.month, month);
                assert_int_equal(c.day, day);
                assert_int_equal(c.hour, 23);
                assert_int_equal(c.minute, 59);
                assert_int_equal(c.second, 59);
                assert_int_equal(c.weekday, weekday);
                assert_int_equal(civil_seconds(&c), days * CIVIL_SECONDS_PER_DAY + 86399);
                assert_non_null(gmtime_r(&t, &tm));
                assert_int_equal(tm.tm_mday, day);
                assert_int_equal(tm.tm_wday, weekday);
                expected++;
                weekday = (uint8_t) ((weekday + 1) % 7);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_day)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
