package protocol

// MaxPath is PATH_MAX, without the NUL byte.
const MaxPath = 4095

// Copy describes files to copy from a container or to it. A process of the runtime does that in the container's mount and user
// namespace: nothing of the container's is run. Its standard output, or input, is a tar stream, and on its standard error it writes a
// CopyNote a line. It ends with 0 if all went well.
type Copy struct {
	// From says to copy from the container; else to it.
	From bool `json:",omitempty"`
	// Path is in the container, from its root on. How it is written says what is meant: "/." at its end are the contents.
	Path string
	// Follow copies what a link at Path leads to. It is of From.
	Follow bool `json:",omitempty"`
	// Extract takes the stream as an archive whose entries go into the directory Path. Otherwise it is of one thing.
	Extract bool `json:",omitempty"`
	// Owner keeps the user and group ids that the stream has, and the set-id bits. Otherwise all belongs to the container's root.
	Owner bool `json:",omitempty"`
}

// CopyNote is one line of what a copying process has to say: one of the texts is set.
type CopyNote struct {
	// Warning says what was left out.
	Warning string `json:",omitempty"`
	// Error says why the copy ended early. Kind is one of the Copy constants, or "".
	Error string `json:",omitempty"`
	Kind  string `json:",omitempty"`
}

// Kinds of errors of a copy.
const (
	CopyNotFound = "not-found" // there is nothing at Path
	CopyInvalid  = "invalid"   // source and destination don't go together, or the stream is damaged
	CopyLimit    = "limit"     // it is more than a copy may be
)
