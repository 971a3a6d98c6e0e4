"""int8 by choice: calibrated on a user's photographs, judged on others (``make export INT8=``)."""
