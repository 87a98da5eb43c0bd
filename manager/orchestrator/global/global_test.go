package global_test

import (
	"testing"

	"github.com/skep-io/skep/manager/orchestrator/global"
	"github.com/skep-io/skep/manager/orchestrator/orchestratortest"
)

func TestScript(t *testing.T) { orchestratortest.Run(t, "testdata", global.Step) }
