/* The Gregorian calendar repeats every 400 years of 146,097 days. Years are counted from March, so
 * that the leap day is a year's last and month lengths follow one linear rule. */
#include "sched/civil.h"

#define DAYS_PER_ERA 146097
#define EPOCH_SHIFT 719468 /* days from 0000-03-01 to 1970-01-01 */

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

int64_t civil_days(int32_t year, uint8_t month, uint8_t day) {
    int64_t y = month <= 2 ? (int64_t) year - 1 : year;
    int64_t era = floor_div(y, 400);
    int64_t year_of_era = y - era * 400;
    int64_t from_march = (month + 9) % 12;
    int64_t day_of_year = (153 * from_march + 2) / 5 + day - 1;

    ASSERT(month >= 1 && month <= 12);
    ASSERT(day >= 1 && day <= 31);
    return era * DAYS_PER_ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
           day_of_year - EPOCH_SHIFT;
}

int64_t civil_seconds(const struct civil *c) {
    ASSERT(c->hour < 24 && c->minute < 60 && c->second < 60);
    return civil_days(c->year, c->month, c->day) * CIVIL_SECONDS_PER_DAY + c->hour * 3600 +
           c->minute * 60 + c->second;
}

struct civil civil_of(int64_t seconds) {
    int64_t days = floor_div(seconds, CIVIL_SECONDS_PER_DAY);
    int64_t rest = seconds - days * CIVIL_SECONDS_PER_DAY;
    int64_t shifted = days + EPOCH_SHIFT;
    int64_t era = floor_div(shifted, DAYS_PER_ERA);
    int64_t day_of_era = shifted - era * DAYS_PER_ERA;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t from_march = (5 * day_of_year + 2) / 153;
    int64_t weekday = (days + 4) % 7; /* 1970-01-01 was a Thursday */
    struct civil c;

    c.day = (uint8_t) (day_of_year - (153 * from_march + 2) / 5 + 1);
    c.month = (uint8_t) (from_march < 10 ? from_march + 3 : from_march - 9);
    c.year = (int32_t) (era * 400 + year_of_era + (c.month <= 2));
    c.hour = (uint8_t) (rest / 3600);
    c.minute = (uint8_t) (rest / 60 % 60);
    c.second = (uint8_t) (rest % 60);
    c.weekday = (uint8_t) (weekday < 0 ? weekday + 7 : weekday);
    return c;
}

bool civil_is_leap(int32_t year) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

uint8_t civil_month_days(int32_t year, uint8_t month) {
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    ASSERT(month >= 1 && month <= 12);
    return month == 2 && civil_is_leap(year) ? 29 : days[month - 1];
}
