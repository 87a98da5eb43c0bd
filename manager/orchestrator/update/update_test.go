package update_test

import (
	"testing"

	"github.com/skep-io/skep/manager/orchestrator/orchestratortest"
	"github.com/skep-io/skep/manager/orchestrator/update"
)

func TestScript(t *testing.T) { orchestratortest.Run(t, "testdata", update.Step) }
