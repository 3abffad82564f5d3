{{ config(materialized='incremental', unique_key='id') }}
select id, name, {{ 'true' if is_incremental() else 'false' }} as again from {{ ref('dbt_table') }}
