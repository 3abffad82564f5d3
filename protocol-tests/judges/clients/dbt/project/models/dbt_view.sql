{{ config(materialized='view') }}
select sum(price) as total from {{ ref('dbt_table') }}
