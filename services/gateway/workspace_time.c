// SPDX-License-Identifier: Apache-2.0
#include "services/gateway/workspace_time.h"

#include <stdio.h>
#include <time.h>

const char *rfc3339_format(int64_t realtime_ms, char text[RFC3339_SIZE])
{
    time_t seconds = (time_t)(realtime_ms / 1000);
    struct tm tm = {0};
    gmtime_r(&seconds, &tm);
    char date[24];
    if (strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        date[0] = '\0'; /* beyond year 9999 */
    snprintf(text, RFC3339_SIZE, "%s.%03dZ", date, (int)(realtime_ms % 1000));
    return text;
}

static bool take_number(const char **at, int digits, int min, int max, int *value)
{
    *value = 0;
    for (int i = 0; i < digits; i++, (*at)++) {
        if (**at < '0' || **at > '9')
            return false;
        *value = *value * 10 + (**at - '0');
    }
    return *value >= min && *value <= max;
}

static bool take(const char **at, char a, char b)
{
    if (**at != a && **at != b)
        return false;
    (*at)++;
    return true;
}

static bool take_fraction(const char **at, int *ms)
{
    *ms = 0;
    if (**at != '.')
        return true;
    (*at)++;
    int count = 0;
    for (int weight = 100; **at >= '0' && **at <= '9'; (*at)++, count++, weight /= 10)
        *ms += weight * (**at - '0');
    return count > 0;
}

static bool take_offset(const char **at, int *minutes)
{
    *minutes = 0;
    if (take(at, 'Z', 'z'))
        return true;
    int sign = **at == '-' ? -1 : 1;
    int hour, minute;
    if (!take(at, '+', '-') || !take_number(at, 2, 0, 23, &hour) || !take(at, ':', ':') ||
        !take_number(at, 2, 0, 59, &minute))
        return false;
    *minutes = sign * (hour * 60 + minute);
    return true;
}

bool rfc3339_parse(const char *text, int64_t *realtime_ms)
{
    struct tm tm = {0};
    int year, month, ms, offset;
    const char *at = text;
    if (!take_number(&at, 4, 1970, 9999, &year) || !take(&at, '-', '-') || !take_number(&at, 2, 1, 12, &month) ||
        !take(&at, '-', '-') || !take_number(&at, 2, 1, 31, &tm.tm_mday) || !take(&at, 'T', 't') ||
        !take_number(&at, 2, 0, 23, &tm.tm_hour) || !take(&at, ':', ':') || !take_number(&at, 2, 0, 59, &tm.tm_min) ||
        !take(&at, ':', ':') || !take_number(&at, 2, 0, 59, &tm.tm_sec) || !take_fraction(&at, &ms) ||
        !take_offset(&at, &offset) || *at != '\0')
        return false;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    int day = tm.tm_mday;
    int64_t seconds = timegm(&tm);
    if (tm.tm_mday != day)
        return false; /* the 30th of February: timegm made it the 1st or 2nd of March */
    *realtime_ms = (seconds - (int64_t)offset * 60) * 1000 + ms;
    return true;
}
