# The Quickstart of the production guide contract, section 03, but for base URL and key.
curl -sS -X POST "$JUNGLE_GRID_API/v1/jobs/estimate" \
-H "Authorization: Bearer $JUNGLE_GRID_API_KEY" \
-H "Content-Type: application/json" \
-d '{
"name": "quickstart-estimate",
"image": "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime",
"workload_type": "batch",
"model_size_gb": 1,
"command": ["python", "-c", "from pathlib import Path; Path('/workspace/artifacts/transcript.txt').write_text('done')"],
"expected_artifacts": ["/workspace/artifacts/transcript.txt"]
}'
JOB_ID=$(curl -sS -X POST "$JUNGLE_GRID_API/v1/jobs" \
-H "Authorization: Bearer $JUNGLE_GRID_API_KEY" \
-H "Content-Type: application/json" \
-d '{
"name": "quickstart-job",
"image": "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime",
"workload_type": "batch",
"model_size_gb": 1,
"command": ["python", "-c", "from pathlib import Path; Path('/workspace/artifacts/transcript.txt').write_text('done')"],
"expected_artifacts": ["/workspace/artifacts/transcript.txt"]
}' | jq -r .job_id)
curl -sS -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" "$JUNGLE_GRID_API/v1/jobs/$JOB_ID"
curl -sS -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" "$JUNGLE_GRID_API/v1/jobs/$JOB_ID/events"
curl -sS -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" "$JUNGLE_GRID_API/v1/jobs/$JOB_ID/logs?tail=100"
curl -sS -H "Authorization: Bearer $JUNGLE_GRID_API_KEY" "$JUNGLE_GRID_API/v1/jobs/$JOB_ID/artifacts"
