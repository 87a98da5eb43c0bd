package restart_test

import (
	"testing"

	"github.com/skep-io/skep/manager/orchestrator/orchestratortest"
	"github.com/skep-io/skep/manager/orchestrator/restart"
)

func TestScript(t *testing.T) { orchestratortest.Run(t, "testdata", restart.Step) }
