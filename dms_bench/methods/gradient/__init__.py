"""Methods that train the structure by gradient descent: DMS, GET, MES and SNS."""
