select id, name, enabled from {{ source("segment", "sources") }} where deleted_at is null
