package executor

import (
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
)

// genericPrefix begins the names of the variables that say what a task has of its node's generic resources, as in Docker.
const genericPrefix = "DOCKER_RESOURCE_"

// genericEnv returns a variable for each kind: the ids, or how many where they have none.
func genericEnv(resources []*api.GenericResource) []string {
	var out []string
	for _, r := range resources {
		values := r.GetIds()
		if len(values) == 0 {
			values = []string{strconv.FormatInt(r.GetCount(), 10)}
		}
		out = append(out, genericPrefix+strings.ToUpper(r.GetKind())+"="+strings.Join(values, ","))
	}
	return out
}
