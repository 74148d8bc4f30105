-- question: What will this month cost, and when is the plan used up?
-- description: One row for API calls and one for monthly tracked users. The forecast is what the
--   month has used so far, and for each day that remains the level of the last 28 days, times what
--   is usual for its weekday (last eight weeks) and for its day of the month (last three months,
--   within which users come back and so count less and less). The range is that within which 90 % of
--   months should end, by how far single days lie from that pattern. Only whole days count. A
--   tracked user that is billed is one who was identified, or never was: identified and
--   never_identified together. The limits are those of ANALYTICS_PLAN_API_CALLS and
--   ANALYTICS_PLAN_MTU, as the API does not tell them.
-- key: meter
-- column meter text: api_calls or mtu.
-- column month timestamp: First day of the month that the forecast is for.
-- column as_of timestamp: Last whole day that was loaded.
-- column days_passed bigint: Whole days of the month until then.
-- column days_in_month bigint: Days of the month.
-- column month_to_date bigint: Used in these days.
-- column last_month_same_day bigint: Used in as many days of the month before.
-- column two_months_ago_same_day bigint: Used in as many days of the month before that.
-- column three_months_ago_same_day bigint: Used in as many days of the month before that one.
-- column last_month bigint: Used in the whole month before.
-- column forecast_month_end bigint: Expected for the whole month.
-- column forecast_low bigint: Lower end of the range.
-- column forecast_high bigint: Upper end of the range.
-- column plan_limit bigint: What the plan includes a month; null if nobody said.
-- column plan_reached_on timestamp: Day on which that is used up; null if it is not this month.
-- column above_plan bool: Whether the forecast is above the plan; null without a plan.
-- figure month_to_date: max(month_to_date) FILTER (meter = 'api_calls')
-- figure forecast_month_end: max(forecast_month_end) FILTER (meter = 'api_calls')
-- figure month_to_date_mtu: max(month_to_date) FILTER (meter = 'mtu')
-- figure forecast_month_end_mtu: max(forecast_month_end) FILTER (meter = 'mtu')
-- figure plans_exceeded: count(*) FILTER (above_plan)
-- warn within_plan (the month is going to use more than the plan includes; see cost_drivers for
--    what makes it, or ask for a larger plan): above_plan

WITH days AS (
    SELECT
        'api_calls' AS meter,
        CAST("timestamp" AS DATE) AS day,
        CAST(daily_api_calls AS DOUBLE) AS used
    FROM usage_api_calls_daily
    WHERE daily_api_calls IS NOT NULL
        AND "timestamp" < date_trunc('day', getvariable('now'))
    UNION ALL
    SELECT
        'mtu',
        CAST("timestamp" AS DATE),
        CAST(daily_identified + daily_never_identified AS DOUBLE)
    FROM usage_mtu_daily
    WHERE daily_identified + daily_never_identified IS NOT NULL
        AND "timestamp" < date_trunc('day', getvariable('now'))
),
meters AS (
    SELECT
        meter,
        max(day) AS as_of,
        CAST(date_trunc('month', max(day) + INTERVAL 1 DAY) AS DATE) AS month,
        CAST(last_day(max(day) + INTERVAL 1 DAY) AS DATE) AS month_end,
        CASE meter
            WHEN 'mtu' THEN getvariable('plan_mtu')
            ELSE getvariable('plan_api_calls')
        END AS plan_limit
    FROM days
    GROUP BY meter
),
weekdays AS (
    SELECT
        d.meter,
        isodow(d.day) AS weekday,
        avg(d.used) / nullif(avg(avg(d.used)) OVER (PARTITION BY d.meter), 0) AS factor
    FROM days AS d
    JOIN meters AS m ON m.meter = d.meter
    WHERE d.day > m.as_of - 56
    GROUP BY d.meter, isodow(d.day)
),
earlier AS (
    SELECT
        d.meter,
        day(d.day) AS day_of_month,
        d.used / w.factor / nullif(
            avg(d.used / w.factor) OVER (PARTITION BY d.meter, date_trunc('month', d.day)), 0
        ) AS relative
    FROM days AS d
    JOIN meters AS m ON m.meter = d.meter
    JOIN weekdays AS w ON w.meter = d.meter AND w.weekday = isodow(d.day)
    WHERE d.day < m.month AND d.day >= m.month - INTERVAL 3 MONTH AND w.factor > 0
),
shapes AS (
    SELECT meter, day_of_month, avg(relative) AS shape FROM earlier GROUP BY meter, day_of_month
),
calendar AS (
    SELECT m.meter, CAST(c.day AS DATE) AS day
    FROM meters AS m,
        unnest(generate_series(m.as_of - 55, m.month_end, INTERVAL 1 DAY)) AS c(day)
),
weights AS (
    SELECT
        c.meter,
        c.day,
        d.used,
        coalesce(w.factor, 1) * coalesce(s.shape, s28.shape, 1) AS weight
    FROM calendar AS c
    LEFT JOIN days AS d ON d.meter = c.meter AND d.day = c.day
    LEFT JOIN weekdays AS w ON w.meter = c.meter AND w.weekday = isodow(c.day)
    LEFT JOIN shapes AS s ON s.meter = c.meter AND s.day_of_month = day(c.day)
    LEFT JOIN shapes AS s28 ON s28.meter = c.meter AND s28.day_of_month = 28
),
scales AS (
    SELECT
        m.meter,
        coalesce(
            sum(w.used) / nullif(sum(w.weight) FILTER (w.used IS NOT NULL), 0), 0
        ) AS scale
    FROM meters AS m
    JOIN weights AS w ON w.meter = m.meter AND w.day > m.as_of - 28 AND w.day <= m.as_of
    GROUP BY m.meter
),
spreads AS (
    SELECT w.meter, stddev_samp(w.used / (s.scale * w.weight)) AS spread
    FROM weights AS w
    JOIN scales AS s ON s.meter = w.meter
    WHERE w.used IS NOT NULL AND s.scale * w.weight > 0
    GROUP BY w.meter
),
remaining AS (
    SELECT
        m.meter,
        count(w.day) AS days,
        coalesce(sum(s.scale * w.weight), 0) AS used,
        coalesce(sum((s.scale * w.weight) ** 2), 0) AS squares
    FROM meters AS m
    JOIN scales AS s ON s.meter = m.meter
    LEFT JOIN weights AS w ON w.meter = m.meter AND w.day > m.as_of
    GROUP BY m.meter
),
running AS (
    SELECT
        w.meter,
        w.day,
        sum(CASE WHEN w.day > m.as_of THEN s.scale * w.weight ELSE coalesce(w.used, 0) END)
            OVER (PARTITION BY w.meter ORDER BY w.day) AS used
    FROM weights AS w
    JOIN meters AS m ON m.meter = w.meter AND w.day >= m.month
    JOIN scales AS s ON s.meter = w.meter
),
reached AS (
    SELECT r.meter, min(r.day) AS reached_on
    FROM running AS r
    JOIN meters AS m ON m.meter = r.meter AND r.used >= m.plan_limit
    GROUP BY r.meter
),
past AS (
    SELECT
        m.meter,
        coalesce(sum(d.used) FILTER (d.day >= m.month), 0) AS month_to_date,
        sum(d.used) FILTER (
            d.day >= m.month - INTERVAL 1 MONTH AND d.day < m.month
            AND day(d.day) <= m.as_of - m.month + 1
        ) AS one,
        sum(d.used) FILTER (
            d.day >= m.month - INTERVAL 2 MONTH AND d.day < m.month - INTERVAL 1 MONTH
            AND day(d.day) <= m.as_of - m.month + 1
        ) AS two,
        sum(d.used) FILTER (
            d.day >= m.month - INTERVAL 3 MONTH AND d.day < m.month - INTERVAL 2 MONTH
            AND day(d.day) <= m.as_of - m.month + 1
        ) AS three,
        sum(d.used) FILTER (d.day >= m.month - INTERVAL 1 MONTH AND d.day < m.month) AS last_month
    FROM meters AS m
    JOIN days AS d ON d.meter = m.meter
    GROUP BY m.meter
),
forecasts AS (
    SELECT
        m.*,
        p.month_to_date,
        p.one,
        p.two,
        p.three,
        p.last_month,
        p.month_to_date + r.used AS forecast,
        -- each day strays by itself; level and pattern are known from 28 and three times as many
        2.2 * s.spread * sqrt(
            r.squares + r.used ** 2 * (1.0 / 28 + 1.0 / (3 * greatest(r.days, 1)))
        ) AS margin
    FROM meters AS m
    JOIN past AS p ON p.meter = m.meter
    JOIN remaining AS r ON r.meter = m.meter
    LEFT JOIN spreads AS s ON s.meter = m.meter
)
SELECT
    f.meter,
    f.month,
    f.as_of,
    f.as_of - f.month + 1 AS days_passed,
    f.month_end - f.month + 1 AS days_in_month,
    round(f.month_to_date) AS month_to_date,
    round(f.one) AS last_month_same_day,
    round(f.two) AS two_months_ago_same_day,
    round(f.three) AS three_months_ago_same_day,
    round(f.last_month) AS last_month,
    round(f.forecast) AS forecast_month_end,
    round(greatest(f.month_to_date, f.forecast - f.margin)) AS forecast_low,
    round(f.forecast + f.margin) AS forecast_high,
    f.plan_limit,
    r.reached_on AS plan_reached_on,
    f.forecast > f.plan_limit AS above_plan
FROM forecasts AS f
LEFT JOIN reached AS r ON r.meter = f.meter
