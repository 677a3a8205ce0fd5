# The curl smoke test of the REST API contract, section 05, but for base URL and key.
curl -sS -X POST "$JUNGLE_GRID_API/v1/jobs/estimate" \
  -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"name":"curl-estimate","image":"python:3.11","workload_type":"inference","model_size_gb":1}'

JOB_ID=$(curl -sS -X POST "$JUNGLE_GRID_API/v1/jobs" \
  -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"name":"curl-submit","image":"python:3.11","workload_type":"inference","model_size_gb":1,"command":"python","args":["-c","print(42)"]}' \
  | jq -r .job_id)

curl -sS -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" "$JUNGLE_GRID_API/v1/jobs/$JOB_ID"
curl -sS -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" "$JUNGLE_GRID_API/v1/jobs/$JOB_ID/runtime"
