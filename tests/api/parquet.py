"""Teaches schemathesis the media type of an access batch: any bytes, for none that it draws is a Parquet file."""

import schemathesis


@schemathesis.serializer("application/vnd.apache.parquet")
def parquet(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
