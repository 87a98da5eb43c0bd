package store

// Limits. They are part of what managers of one cluster must agree about, so they only grow.
const (
	// MaxObjectSize is the size of one object's protobuf encoding: far above any honest spec, and small enough for a few
	// objects to share an entry.
	MaxObjectSize = 1 << 20
	// MaxEntrySize is the size of one log entry: raft keeps entries in memory and sends them whole.
	MaxEntrySize = 4 << 20
	// groupSize is where the store stops putting further transactions into the same entry: a manager answers its peers between two
	// entries, and the time to apply one should be small beside an election time-out on a machine that is busy.
	groupSize = 256 << 10
	// fairChanges and fairSize are what a transaction of a loop should have at most: well below an entry, so that others get in.
	fairChanges = 400
	fairSize    = 1 << 20
	// maxRequestID is the length of a request id in bytes.
	maxRequestID = 64
	// maxID is the length of an object's id in bytes; real ones have object.IDLength.
	maxID = 64
	// namedWindow is the number of requests with an id of the caller that are remembered: minutes of writes by people.
	namedWindow = 16384
	// ownWindow is the number of requests with a generated id that are remembered: more than raft has in flight.
	ownWindow = 4096
	// watchWindow is the number of batches a watcher may be behind before it must start anew.
	watchWindow = 4096
	// watchChanges bounds the changes in that window, because batches pin old objects in memory.
	watchChanges = 32768
	// maxAttempts bounds how often Update runs its closure: each failed one means that somebody else made progress.
	maxAttempts = 1000
)
