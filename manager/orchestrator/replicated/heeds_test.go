package replicated

import (
	"testing"

	"github.com/skep-io/skep/manager/orchestrator/orchestratortest"
)

func TestHeeds(t *testing.T) { orchestratortest.Heeds(t, Step, heeds) }
