package store

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// entryOverhead is what an entry needs beside its only transaction: a tag and a length, and what raft and gRPC put around it,
// so that the largest entry still fits into a gRPC message of the default 4 MiB.
const entryOverhead = 4 << 10

// transactionsField is the number of LogRecord.transactions, and transactionOverhead the most that a transaction needs beside itself.
const (
	transactionsField   = 1
	transactionOverhead = 1 + 5
)

// appendTransaction adds an encoded api.Transaction to an encoded api.LogRecord.
func appendTransaction(record, transaction []byte) []byte {
	record = protowire.AppendTag(record, transactionsField, protowire.BytesType)
	return protowire.AppendBytes(record, transaction)
}
