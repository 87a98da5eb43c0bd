package replicated_test

import (
	"testing"

	"github.com/skep-io/skep/manager/orchestrator/orchestratortest"
	"github.com/skep-io/skep/manager/orchestrator/replicated"
)

func TestScript(t *testing.T) { orchestratortest.Run(t, "testdata", replicated.Step) }
