package job_test

import (
	"testing"

	"github.com/skep-io/skep/manager/orchestrator/job"
	"github.com/skep-io/skep/manager/orchestrator/orchestratortest"
)

func TestScript(t *testing.T) { orchestratortest.Run(t, "testdata", job.Step) }
