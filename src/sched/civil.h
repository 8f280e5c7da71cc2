/* Dates of the proleptic Gregorian calendar as numbers: pure arithmetic, no zone, no clock.
 * Thread: any. */
#pragma once

#include "base/defs.h"

#define CIVIL_SECONDS_PER_DAY 86400

/* A local date and time. month 1-12, day 1-31, weekday 0 = Sunday. */
struct civil {
    int32_t year;
    uint8_t month, day, hour, minute, second, weekday;
};

/* Days from 1970-01-01 to the date (negative before it). @day may be anything from 1 to 31: a day
 * that the month does not have counts on into the next. Years -9999..9999. */
int64_t civil_days(int32_t year, uint8_t month, uint8_t day);
/* Seconds since 1970-01-01T00:00:00 of the date's own clock. */
int64_t civil_seconds(const struct civil *c);
struct civil civil_of(int64_t seconds);
bool civil_is_leap(int32_t year);
uint8_t civil_month_days(int32_t year, uint8_t month);
