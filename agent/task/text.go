package task

import (
	"fmt"

	"github.com/docker/go-units"

	"github.com/skep-io/skep/api"
)

// exitText says why a process that ended by itself counts as failed, in Docker's words.
func exitText(t *api.Task, c *api.ContainerStatus) string {
	if !c.GetOomKilled() {
		return fmt.Sprintf("task: non-zero exit (%d)", c.GetExitCode())
	}
	limit := t.GetSpec().GetResources().GetLimits().GetMemoryBytes()
	if limit <= 0 {
		return "out of memory: the node had none left; reserve memory for the service, or limit it"
	}
	return fmt.Sprintf("out of memory (limit %s): raise it with --limit-memory", size(limit))
}

// size prints bytes in binary units, such as 64 MiB.
func size(bytes int64) string {
	return units.CustomSize("%.4g %s", float64(bytes), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"})
}
