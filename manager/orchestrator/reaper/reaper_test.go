package reaper_test

import (
	"testing"

	"github.com/skep-io/skep/manager/orchestrator/orchestratortest"
	"github.com/skep-io/skep/manager/orchestrator/reaper"
)

func TestScript(t *testing.T) { orchestratortest.Run(t, "testdata", reaper.Step) }
