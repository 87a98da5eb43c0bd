// Package taskid says which ids of tasks, and of the containers that are called by them, can name files.
//
// They come from a manager. What one of them names on a node, directories, leases and sealed files, must be in the directory that it is meant
// to be in.
package taskid

import (
	"strings"

	"github.com/skep-io/skep/internal/fault"
)

// maxLength is the most bytes of an id.
const maxLength = 64

// Check returns an error of the kind Invalid unless an id can name a file; what is whose id it is.
func Check(what, id string) error {
	if id == "" || len(id) > maxLength || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz-") != "" {
		return fault.New(fault.Invalid, "%s id %.80q is not made of lower-case letters and digits", what, id)
	}
	return nil
}
