{{ config(materialized='table') }}
select id, name, price, md5(name) as hash, current_user::text as who from {{ ref('dbt_seed') }}
