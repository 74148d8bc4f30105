select s.id, l.key, l.value
from {{ source("segment", "sources") }} as s
cross join {{ source("segment", "labels") }} as l
where s.deleted_at is null and s.labels like '%"' || l.key || '"%'
